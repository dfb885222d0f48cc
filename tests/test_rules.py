"""The architecture, on the syntax tree: who imports whom, where each framework lives."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "w4d_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# A part may import those named after it, and itself.
MAY_IMPORT = {
    "types": set(),
    "npz": {"types"},
    "kin": {"types", "npz"},
    "nets": {"types"},
    "data": {"types", "npz", "kin"},
    "evaluate": {"types", "kin", "data"},
    "sample": {"types", "kin", "nets", "data", "train"},
    "train": {"types", "npz", "kin", "nets", "data", "sample"},
    "parity": {"types", "npz", "kin", "nets", "sample", "train"},
    "plan": {"types", "nets", "train"},
}
# Inside train: the maths knows nothing of the loop, and sampling uses the maths alone.
LOOP = {"__main__", "loop", "meter", "optim", "program", "save", "shard", "state"}
LOOP |= {"cluster", "feed", "stop", "workdir"}
FRAMEWORK_HOMES = {
    "flax": {"nets"},
    "optax": {"train/optim.py", "train/state.py"},
    "orbax": {"train/save.py"},
    "grain": {"data/pipeline.py", "data/store.py", "data/source.py"},
    "mujoco": {"kin/robot.py", "kin/urdf.py", "data/sim"},
    "ml_collections": {"train/config.py", "train/workdir.py"},
}


def imports(path: Path) -> set[str]:
    """Dotted names of every module that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    place = path.relative_to(PACKAGE).parts
    part = place[0].removesuffix(".py")
    if part == "__init__":
        return
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package != "w4d_jax":
            continue
        target = rest.split(".")[0]
        assert target == part or target in MAY_IMPORT[part], f"{path}: imports {name}"
        if part == "sample" and target == "train":
            assert rest.split(".")[1] not in LOOP, (
                f"{path}: sampling imports the loop: {name}"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_framework_has_its_home(path):
    place = path.relative_to(PACKAGE).as_posix()
    for name in imports(path):
        homes = FRAMEWORK_HOMES.get(name.split(".")[0])
        if homes is not None:
            assert any(place.startswith(home) for home in homes), f"{place}: imports {name}"
