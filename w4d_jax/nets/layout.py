"""Where activations live on a mesh: a few named points, and nothing at all without one.

The mesh is the one in context (`jax.set_mesh`, train/shard.py), so that a network is the
same function on one CPU and on a pod. Its axes cut

    data, fsdp   examples, together
    seq          the tokens of an example, the rows of a video
    tensor       heads and hidden units
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "seq", "tensor")
BATCH = ("data", "fsdp")


def current() -> AbstractMesh | None:
    """The mesh in context; None without one, on a mesh of one device, and inside
    `shard_map`, where arrays are one device's already."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return None
    return mesh


def platform() -> str:
    """What the program is for: the mesh's devices, which need not be this machine's."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def size(axis: str) -> int:
    mesh = current()
    return 1 if mesh is None else mesh.shape[axis]


def tokens(x):
    """Tokens f[B,L,D]: the residual stream of a transformer."""
    return _placed(x, BATCH, "seq", None)


def hidden(x):
    """Hidden units f[B,L,F] of a feed-forward."""
    return _placed(x, BATCH, "seq", "tensor")


def context(x):
    """What every token looks at f[B,S,D]: whole on each device of its example."""
    return _placed(x, BATCH, None, None)


def video(x):
    """Pixels or latents f[B,T,H,W,C] for convolutions, which trade the rows between."""
    return _placed(x, BATCH, None, "seq", None, None)


def padded(x, axis: int):
    """x with zeros behind it along `axis`, up to a length that `seq` divides."""
    short = -x.shape[axis] % size("seq")
    widths = [(0, short if i == axis % x.ndim else 0) for i in range(x.ndim)]
    return jnp.pad(x, widths) if short else x


def spec(shape, *axes) -> P:
    """`fitting` for the mesh in context."""
    mesh = current()
    assert mesh is not None
    return fitting(mesh.shape, shape, axes)


def fitting(sizes, shape, axes) -> P:
    """The mesh axes that cut each dimension of `shape`: those wanted, less the last ones
    until their sizes together divide it."""

    def fits(n: int, names):
        names = (names,) if isinstance(names, str) else names or ()
        while n % math.prod(sizes[name] for name in names):
            names = names[:-1]
        return names if len(names) > 1 else names[0] if names else None

    return P(*map(fits, shape, axes))


def _placed(x, *axes):
    if current() is None:
        return x
    return jax.lax.with_sharding_constraint(x, spec(x.shape, *axes))
