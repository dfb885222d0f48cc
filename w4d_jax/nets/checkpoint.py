"""Our own form of a checkpoint: a folder of safetensors in our names, layers stacked.

    w4d.json              {"model": "wan", "config": {sizes}}
    weights.safetensors   or several, with weights.safetensors.index.json

Every leaf can be read in part, so that each device gets what it holds and no more.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from w4d_jax.nets.files import SHARD, open_tensors, write_shards
from w4d_jax.nets.lazy import Lazy
from w4d_jax.types import InputError

# How precisely a network works is decided where it is used, not where its weights lie.
RUNTIME = ("dtype", "param_dtype", "remat")


class Checkpoint(NamedTuple):
    model: str  # of nets/models.py
    config: Any  # its sizes: the dataclass that the model is built from
    leaves: Mapping[str, Lazy]  # by path, "dit/blocks/self/q/kernel"


def write_checkpoint(folder: Path, checkpoint: Checkpoint, limit: int = SHARD) -> None:
    """Writes into an existing folder."""
    write_shards(folder, "weights", checkpoint.leaves, limit)
    about = {"model": checkpoint.model, "config": as_entry(checkpoint.config)}
    (folder / "w4d.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def read_checkpoint(folder, configs: Mapping[str, type]) -> Checkpoint:
    """Opens a folder; nothing of its weights is read yet.

    configs: the models that will do, each with the dataclass of its sizes. InputError for
    any other.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / "w4d.json").read_text(encoding="utf-8"))
        model, entry = about["model"], about["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: no imported checkpoint ({error}); see tools/convert.py import"
        ) from error
    if model not in configs:
        raise InputError(f"{folder}: holds {model}, need {' or '.join(configs)}")
    config = from_entry(configs[model], entry, f"{folder}/w4d.json")
    return Checkpoint(model, config, open_tensors(folder))


def check_shapes(leaves: Mapping[str, Lazy], shapes: Mapping[str, tuple], name) -> None:
    """InputError unless the leaves are a model's, of its shapes and in floating point."""
    odd = sorted(set(leaves) ^ set(shapes))
    if odd:
        raise InputError(f"{name}: lacks or has too much: {', '.join(odd[:8])}")
    for path, leaf in leaves.items():
        if leaf.shape != shapes[path]:
            raise InputError(
                f"{name}: {path} is {list(leaf.shape)}, need {list(shapes[path])} by its "
                "config; is it another model's?"
            )
    check_types(leaves, name)


def check_types(leaves: Mapping[str, Lazy], name) -> None:
    """InputError for weights in anything but floating point of 16 or 32 bits."""
    for path, leaf in leaves.items():
        if leaf.dtype.itemsize not in (2, 4) or leaf.dtype.kind not in "fV":
            raise InputError(
                f"{name}: {path} is {leaf.dtype}, need float32, bfloat16 or float16"
            )


def placed(leaves: Mapping[str, Lazy], abstract: Mapping[str, Any], name) -> dict[str, Any]:
    """The leaves on devices, in the shapes, types and shardings of `abstract`.

    One leaf after the other, and of each only the parts that devices of this process hold.
    """
    shapes = {path: leaf.shape for path, leaf in abstract.items()}
    check_shapes(leaves, shapes, name)
    return {path: _place(leaves[path], leaf) for path, leaf in abstract.items()}


def _place(leaf: Lazy, wanted) -> jax.Array:
    read: dict[str, np.ndarray] = {}  # replicas of a part are read once

    def part(index):
        key = str(index)
        if key not in read:
            read[key] = np.asarray(leaf[index]).astype(wanted.dtype)
        return read[key]

    return jax.make_array_from_callback(leaf.shape, wanted.sharding, part)


def as_entry(config) -> dict[str, Any]:
    """Sizes as JSON has them."""
    entry = dataclasses.asdict(config)
    return {key: _plain(value) for key, value in entry.items() if key not in RUNTIME}


def from_entry(kind: type, entry: Any, name) -> Any:
    """The inverse of `as_entry`; InputError for what the dataclass does not take."""
    try:
        hints = typing.get_type_hints(kind)
        built = {key: _built(hints[key], value, name) for key, value in entry.items()}
        config = kind(**built)
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{name}: not the sizes of a {kind.__name__} ({error})") from error
    check_sizes(config, name)
    return config


def check_sizes(config, name) -> None:
    """InputError for a size that is no whole number, or that no network has."""
    for field in dataclasses.fields(config):
        size = getattr(config, field.name)
        if field.type is int and not (type(size) is int and 0 <= size < 2**20):
            raise InputError(f"{name}: {field.name}={size!r}, need a whole number < 2**20")


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k not in RUNTIME}
    return value


def _built(hint, value, name):
    """A nested dataclass out of its dict; anything else as it is."""
    choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [kind for kind in choices if dataclasses.is_dataclass(kind)]
    if kinds and isinstance(value, dict):
        return from_entry(typing.cast(type, kinds[0]), value, name)
    return value
