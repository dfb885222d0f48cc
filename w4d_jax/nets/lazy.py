"""Arrays that still lie in a file or in another layout: their shape and type are known."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Lazy:
    """An array not yet read: `x[index]` reads a part of it, `np.asarray(x)` the whole."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[tuple], np.ndarray]  # index -> what numpy would give for it
    stacked: bool = False  # x[i] costs no more than that part

    def __getitem__(self, index) -> np.ndarray:
        return self.read(index if isinstance(index, tuple) else (index,))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.read(()), dtype)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def pieces(self) -> Iterator[np.ndarray]:
        """Its consecutive parts: the layers of a stack, or the whole."""
        if self.stacked:
            yield from (self[i] for i in range(self.shape[0]))
        else:
            yield self[()]


def held(x) -> Lazy:
    """An array in memory."""
    return Lazy(x.shape, x.dtype, lambda index: x[index])


def stack(
    layers: int, shape: tuple[int, ...], dtype: np.dtype, layer: Callable[[int], np.ndarray]
) -> Lazy:
    """The arrays layer(0), layer(1), ... of one shape, on a new first axis."""

    def read(index):
        which, *rest = index or (slice(None),)
        if not isinstance(which, slice):
            return layer(which)[tuple(rest)]
        chosen = range(*which.indices(layers))
        part = layer(chosen[0])[tuple(rest)]
        whole = np.empty((len(chosen), *part.shape), dtype)
        whole[0] = part
        for i, number in enumerate(chosen[1:], 1):
            whole[i] = layer(number)[tuple(rest)]
        return whole

    return Lazy((layers, *shape), dtype, read, stacked=True)


def as_bytes(x: np.ndarray) -> memoryview:
    """The bytes of an array, in C order."""
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8).data


def digest(leaves: Mapping[str, Lazy]) -> str:
    """Sixteen hex digits of names, types, shapes and values: the same weights give the same
    ones, whatever files they are in. A piece in memory at a time."""
    made = hashlib.blake2b(digest_size=8)
    for path, leaf in sorted(leaves.items()):
        made.update(f"{path} {leaf.dtype} {leaf.shape};".encode())
        for piece in leaf.pieces():
            made.update(as_bytes(piece))
    return made.hexdigest()
