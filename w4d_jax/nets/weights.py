"""Names and layouts of PyTorch checkpoints, two ways and total. numpy only.

A table is a tuple of `Tensor`s: where a leaf lives in our tree, what the checkpoint calls
it, and how the axes differ. Blocks are stacked in our tree, one by one in theirs. `ours`
and `theirs` read a table in either direction, each leaf when it is asked for, and refuse
what it does not name; `from_torch` and `to_torch` do it for trees in memory.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from w4d_jax.nets.lazy import Lazy, stack
from w4d_jax.types import InputError

# Present in some files and never used by the model; `sign` marks WristWorld's, umT5 has its
# embedding twice, CLIP numbers its positions and may come with its head.
UNUSED = (
    r"(transformer\.)?blocks\.\d+\.(attn2\.norm_added_q|cross_attn\.norm_q_img)\.weight"
    r"|sign|encoder\.embed_tokens\.weight|(vision_model\.)?embeddings\.position_ids"
    r"|visual_projection\.weight"
)


class Layout(NamedTuple):
    """How one tensor's axes differ; each way undoes the other exactly."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


class Tensor(NamedTuple):
    """One row of a table; `layers` > 0: theirs has `{}` for it, ours a leading axis."""

    ours: str  # "dit/blocks/self/q/kernel"
    theirs: str  # "blocks.{}.attn1.to_q.weight"
    layout: Layout
    layers: int = 0

    def names(self) -> list[str]:
        return [self.theirs.format(i) for i in range(self.layers)] or [self.theirs]


SAME = Layout(lambda a: a, lambda a: a)
MATRIX = Layout(np.transpose, np.transpose)  # [out, in]
PATCH = Layout(  # [out, in, t, h, w]
    lambda a: a.transpose(2, 3, 4, 1, 0), lambda a: a.transpose(4, 3, 0, 1, 2)
)
ROW = Layout(lambda a: a[0], lambda a: a[None])  # a leading axis of one
GRID = Layout(  # [1, C, t, h, w]
    lambda a: a[0].transpose(1, 2, 3, 0), lambda a: a.transpose(3, 0, 1, 2)[None]
)

# Kinds of module: our leaf, their leaf, layout.
LINEAR = (("/kernel", ".weight", MATRIX), ("/bias", ".bias", SAME))
CONV = (("/kernel", ".weight", PATCH), ("/bias", ".bias", SAME))
NORM = (("/scale", ".weight", SAME), ("/bias", ".bias", SAME))
RMS = (("/scale", ".weight", SAME),)


def rows(modules, layers: int = 0) -> tuple[Tensor, ...]:
    """The rows of modules, each (ours, theirs, kind)."""
    return tuple(
        Tensor(ours + our_leaf, theirs + their_leaf, layout, layers)
        for ours, theirs, kind in modules
        for our_leaf, their_leaf, layout in kind
    )


def ours(table: tuple[Tensor, ...], tensors: Mapping[str, Any]) -> dict[str, Lazy]:
    """Checkpoint -> our leaves by path, values and dtypes untouched.

    tensors: arrays, or `Lazy` ones. Names that the table lacks, or that the file lacks, are
    an InputError listing them.
    """
    known = {name for row in table for name in row.names()}
    unknown = [n for n in tensors if n not in known and not re.fullmatch(UNUSED, n)]
    missing = sorted(known - set(tensors))
    if unknown or missing:
        raise InputError(
            f"checkpoint: {len(missing)} tensors missing ({_some(missing)}), "
            f"{len(unknown)} unknown ({_some(unknown)}); is it another model?"
        )
    return {row.ours: _ours(row, [tensors[n] for n in row.names()]) for row in table}


def theirs(table: tuple[Tensor, ...], leaves: Mapping[str, Any]) -> dict[str, Lazy]:
    """Our leaves by path -> checkpoint, the exact inverse of `ours`."""
    known = {row.ours for row in table}
    unknown, missing = sorted(set(leaves) - known), sorted(known - set(leaves))
    if unknown or missing:
        raise InputError(
            f"parameters: {len(missing)} missing ({_some(missing)}), "
            f"{len(unknown)} without a name there ({_some(unknown)})"
        )
    tensors = {}
    for row in table:
        leaf = leaves[row.ours]
        if row.layers and leaf.shape[0] != row.layers:
            raise InputError(f"{row.ours}: {leaf.shape[0]} layers, need {row.layers}")
        for i, name in enumerate(row.names()):
            tensors[name] = _theirs(row, leaf, (i,) if row.layers else ())
    return tensors


def from_torch(table: tuple[Tensor, ...], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Checkpoint -> our tree of arrays in memory; errors as of `ours`."""
    return tree({path: np.asarray(leaf) for path, leaf in ours(table, tensors).items()})


def to_torch(table: tuple[Tensor, ...], params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our tree -> checkpoint, the exact inverse of `from_torch`."""
    leaves = {path: np.asarray(leaf) for path, leaf in flat(params).items()}
    return {name: np.asarray(x) for name, x in theirs(table, leaves).items()}


def tree(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """{"a/b": x} -> {"a": {"b": x}}."""
    nested: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *above, last = path.split("/")
        node = nested
        for key in above:
            node = node.setdefault(key, {})
        node[last] = leaf
    return nested


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The inverse of `tree`."""
    leaves: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{key}/")
        else:
            leaves[prefix + key] = value
    return leaves


def _ours(row: Tensor, tensors: list[Any]) -> Lazy:
    """One leaf: a tensor, or the same tensor of all layers as a stack."""
    first = tensors[0]
    for name, other in zip(row.names(), tensors, strict=True):
        if (other.shape, other.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"checkpoint: {name} is {other.dtype}{list(other.shape)}, layer 0 "
                f"{first.dtype}{list(first.shape)}"
            )
    shape = _shape(row.layout.to_ours, first, row.names()[0])

    def turned(tensor) -> np.ndarray:
        return np.asarray(row.layout.to_ours(np.asarray(tensor)), order="C")

    if not row.layers:
        return Lazy(shape, first.dtype, lambda index: turned(first)[index])
    return stack(row.layers, shape, first.dtype, lambda i: turned(tensors[i]))


def _theirs(row: Tensor, leaf, layer: tuple) -> Lazy:
    part = np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape[len(layer) :])
    shape = _shape(row.layout.to_theirs, part, row.ours)

    def read(index):
        tensor = row.layout.to_theirs(np.asarray(leaf[layer]))
        return np.asarray(tensor, order="C")[index]

    return Lazy(shape, leaf.dtype, read)


def _shape(turn: Callable, x, name: str) -> tuple[int, ...]:
    """The shape of x in the other layout, nothing being read."""
    try:
        return turn(np.broadcast_to(np.zeros((), x.dtype), x.shape)).shape
    except (ValueError, IndexError) as error:
        raise InputError(
            f"checkpoint: {name} has shape {list(x.shape)}: not what this model has there"
        ) from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "none"
