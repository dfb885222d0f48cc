"""The folder of a run: whose it is, as config.json says."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from w4d_jax.types import InputError

# What the shapes and the meaning of a checkpoint hang on: the rest may change on the way.
FIXED = (
    *("task", "codec.", "model.", "lora.", "flow.prediction", "condition.pointmap_"),
    *("condition.rgb_", "data.frames", "data.height", "data.width"),
)
# What older runs, and methods without pairs, do not say.
UNSAID = {"lora": {"rank": 0, "alpha": 32.0}}


def read_config(workdir) -> ConfigDict:
    """config.json of a workdir."""
    path = Path(workdir) / "config.json"
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"workdir {workdir}: no readable config.json ({error})") from error
    needed = ("data", "model", "optimizer", "seed", "steps")
    missing = [k for k in needed if not isinstance(entry, dict) or k not in entry]
    if missing:
        raise InputError(f"workdir {workdir}: config.json has no {', '.join(missing)}")
    return ConfigDict(UNSAID | entry)


def check_same(workdir: Path, config) -> None:
    """InputError where the run in `workdir` is of another model."""
    if not any((workdir / "checkpoints").glob("*")):
        return
    # What neither trains nor lies in a file is drawn from the seed anew.
    rest = config.get("lora", {}).get("rank") or config.model.get("trains")
    drawn = ("seed",) if rest or "wan" in config.get("codec", {}) else ()
    for key, was, now in _differences(read_config(workdir), config):
        if key.startswith(FIXED + drawn):
            raise InputError(
                f"workdir {workdir}: its run has {key}={was}, not {now}; choose another "
                "--workdir"
            )


def claim(workdir: Path, config) -> None:
    """Makes the folder and writes config.json."""
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(_plain(config), indent=1), encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise InputError(f"workdir {workdir}: cannot write to it ({error})") from error


def _differences(was, now) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value in was, value in now) wherever two config.json would differ."""
    left, right = (dict(_leaves(UNSAID | _plain(config))) for config in (was, now))
    for key in left | right:
        if left.get(key) != right.get(key):
            yield key, left.get(key), right.get(key)


def _plain(config) -> dict:
    """As JSON holds it: tuples are lists."""
    return json.loads(config.to_json())


def _leaves(tree, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, branch in tree.items():
            yield from _leaves(branch, f"{path}.{key}" if path else key)
    else:
        yield path, tree
