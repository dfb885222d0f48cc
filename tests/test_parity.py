"""The golden files: every check of each passes, all that they hold is looked at, and a
planted mistake is found."""

import importlib.util
import json
import shutil
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from flax import linen as nn

from w4d_jax.nets import condition
from w4d_jax.parity import CHECKS, golden, scheduler
from w4d_jax.parity.check import compare, compare_relative
from w4d_jax.sample.solver import even_schedule

REPO = Path(__file__).parents[1]
SHARED = REPO.parent / "shared" / "golden"
# The small files travel with the tests; the large ones lie beside the checkout.
FILES = {
    path.stem: path.parent
    for folder in (SHARED, Path(__file__).parent / "data" / "golden")
    for path in sorted(folder.glob("*/*.npz"))
    if path.stem in CHECKS
}
UNREAD = {
    # The network has no text input that it could depend on.
    "kinema4d_act": {"text_embedding"},
    "kinema4d_pm": {"text_embedding"},
}


class Recorded(golden.Arrays):
    """Remembers what was read of it; `made` holds all there are."""

    made: ClassVar[list] = []

    def __init__(self, arrays):
        super().__init__(arrays)
        self.unread = set(arrays)
        self.made.append(self)

    def __getitem__(self, name):
        self.unread.discard(name)
        return super().__getitem__(name)


@pytest.mark.parametrize("name", FILES)
def test_golden(name, monkeypatch):
    monkeypatch.setattr(golden, "Arrays", Recorded)
    monkeypatch.setattr(Recorded, "made", [])
    checks = list(CHECKS[name](FILES[name]))
    assert checks and [check for check in checks if not check.passed] == []
    assert Recorded.made[0].unread == UNREAD.get(name, set())


@pytest.mark.parametrize(
    ("name", "module", "attribute", "mistake", "caught"),
    [
        # The feed-forward's GELU is the tanh form: 3e-4, the least that a mistake does.
        ("wan_t2v", nn, "gelu", partial(nn.gelu, approximate=False), {"velocity"}),
        ("scheduler", scheduler, "unipc_schedule", even_schedule, {"unipc_sigmas_10"}),
        ("masks", condition, "POINTMAP_STD", 1.37, {"affine_pointmap_forward"}),
    ],
)
def test_a_planted_mistake_is_found(name, module, attribute, mistake, caught, monkeypatch):
    if name not in FILES:
        pytest.skip("golden files are not here")
    monkeypatch.setattr(module, attribute, mistake)
    assert caught <= {c.name for c in CHECKS[name](FILES[name]) if not c.passed}


def test_the_tool_compares_what_it_can(tmp_path, capsys):
    """A file without checks, and one that is not what its name says, hide no other's."""
    spec = importlib.util.spec_from_file_location("parity", REPO / "tools" / "parity.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.main([str(tmp_path)]) == 2
    shutil.copy(FILES["masks"] / "masks.npz", tmp_path)
    assert tool.main([str(tmp_path)]) == 0
    np.savez(tmp_path / "clip_vision.npz", meta=json.dumps({"config": {}}))
    np.savez(tmp_path / "other.npz", x=np.ones(1))
    capsys.readouterr()
    assert tool.main([str(tmp_path)]) == 1
    bad, *good, other, last = capsys.readouterr().out.splitlines()
    assert bad.startswith("clip_vision    KeyError: ") and bad.endswith("FAIL")
    assert all(line.startswith("masks ") and line.endswith("  ok") for line in good)
    assert "no checks for this file  FAIL" in other and ", 2 failed, " in last


def test_compare():
    a = np.float32([1, 2, 3])
    off = np.float32([1, 2.5, 3])
    assert compare("x", a, a, 0) == ("x", 0, 0) and compare("x", a, a, 0).passed
    assert compare("x", off, a, 0.1).error == 0.5
    assert not compare("x", off, a, 0.1).passed
    assert compare_relative("x", 2 * a, a, 0.5).error == 1
    for wrong in (a[:2], a[None], np.float32([1, 2, np.nan]), np.float32([1, np.inf, 3])):
        for check in (compare("x", wrong, a, 1e9), compare_relative("x", a, wrong, 1e9)):
            assert not check.passed and check.error == np.inf
