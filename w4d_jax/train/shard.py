"""Where arrays live: one mesh, and a rule that places each parameter by its shape."""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from w4d_jax.types import InputError

AXES = ("data", "fsdp", "seq", "tensor")


def make_mesh(sizes: dict[str, int], devices=None) -> Mesh:
    """A mesh over all devices; one size may be -1 and takes what is left.

    Raises InputError where the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    unknown = set(sizes) - set(AXES)
    shape = [sizes.get(axis, 1) for axis in AXES]
    free = [i for i, size in enumerate(shape) if size == -1]
    if unknown or len(free) > 1 or any(size < 1 and size != -1 for size in shape):
        raise InputError(
            f"mesh {dict(sizes)}: need sizes >= 1 for {AXES}, at most one of -1"
        )
    fixed = math.prod(size for size in shape if size != -1)
    if free and len(devices) % fixed == 0:
        shape[free[0]] = len(devices) // fixed
    if math.prod(shape) != len(devices):
        raise InputError(
            f"mesh {dict(sizes)}: {fixed} does not make {len(devices)} devices; "
            "data=-1 with the others at 1 always does"
        )
    return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 4)


def batch_sharding(mesh: Mesh, batch: int) -> NamedSharding:
    """Examples are spread over data and fsdp together, which must divide the batch."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch % parts:
        raise InputError(
            f"batch={batch}: need a multiple of {parts}, mesh.data x mesh.fsdp "
            f"(try {max(parts, parts * round(batch / parts))})"
        )
    return NamedSharding(mesh, P(("data", "fsdp")))


def param_sharding(mesh: Mesh, leaf) -> NamedSharding:
    """The longest axis that fsdp divides is cut; small leaves go whole to every device."""
    parts = mesh.shape["fsdp"]
    spec: list[str | None] = [None] * len(leaf.shape)
    divisible = [i for i, n in enumerate(leaf.shape) if n % parts == 0]
    if parts > 1 and divisible and math.prod(leaf.shape) >= 2**14:
        spec[max(divisible, key=lambda i: leaf.shape[i])] = "fsdp"
    return NamedSharding(mesh, P(*spec))


def state_shardings(mesh: Mesh, abstract_state):
    """The same rule for parameters, their average and the optimiser's moments."""
    return jax.tree.map(lambda leaf: param_sharding(mesh, leaf), abstract_state)
