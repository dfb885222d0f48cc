"""Where parameters live: one mesh, and a short list of rules on their paths and shapes.

What activations do on the same mesh is said in nets/layout.py.
"""

import math
import re
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from w4d_jax.nets.layout import AXES, BATCH, fitting
from w4d_jax.types import InputError

# Over these two together each parameter is cut, and gathered when a layer needs it: they
# cut work and state alike. Over `data` everything is repeated.
STORED = ("fsdp", "seq")
# (end of a path, mesh axes of its last dimensions), the first that matches. A matrix that
# makes heads or hidden units is cut along them by `tensor`, one that consumes them as well.
RULES = (
    (r"codec/.*", ()),  # whole: convolutions are cut by rows of the video
    (
        r".*/(bias|scale|modulation)",
        (),
    ),  # whole: many small messages cost more than they save
    (r"blocks/.*(q|k|v|k_image|v_image|ffn_in)/kernel", (STORED, "tensor")),
    (r"blocks/.*(o|ffn_out)/kernel", ("tensor", STORED)),
    (r"blocks/.*(attention|mlp/in)/kernel", (STORED, "tensor")),  # nets/vggt
    (r"blocks/.*(attention|mlp)/out/kernel", ("tensor", STORED)),
)
SMALL = 2**14  # leaves of fewer elements go whole to every device


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
    # On a TPU, neighbours on the mesh are neighbours in the machine.
    devices = create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh, batch: int, accumulate: int = 1) -> NamedSharding:
    """Examples are spread over data and fsdp together, which must divide each of the
    `accumulate` parts that a batch is taken in."""
    whole = _examples(mesh) * accumulate
    if accumulate < 1 or batch < 1 or batch % whole:
        near = whole * max(1, round(batch / whole)) if whole > 0 else 1
        raise InputError(
            f"batch={batch}: need a multiple of {whole}, mesh.data x mesh.fsdp x accumulate"
            f" (try batch={near}, or a larger mesh.seq)"
        )
    return NamedSharding(mesh, P(BATCH))


def rows_here(spread: NamedSharding, batch: int) -> list[int]:
    """The rows of a batch that lie on this process's devices, ascending."""
    parts = spread.addressable_devices_indices_map((batch,)).values()
    return sorted({row for part in parts if part for row in range(batch)[part[0]]})


def laid(spread: NamedSharding, rows, which: list[int], batch: int):
    """Host arrays f[R,...] of the rows `which` -> the batch f[B,...] that all processes
    make together, each of its own rows."""
    at = {row: i for i, row in enumerate(which)}

    def place(x):
        def part(index):
            mine = range(batch)[index[0]]
            return x[at[mine[0]] : at[mine[-1]] + 1]

        return jax.make_array_from_callback((batch, *x.shape[1:]), spread, part)

    return jax.tree.map(place, rows)


def repeated(mesh: Mesh, batch):
    """The batch of host arrays, its examples repeated until they go round the devices."""
    parts = _examples(mesh)

    def whole(x):
        return np.resize(x, (-(-len(x) // parts) * parts, *x.shape[1:]))

    return jax.tree.map(whole, batch)


def _examples(mesh: Mesh) -> int:
    """In how many parts examples are spread."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def placement(mesh: Mesh, path: str, shape) -> NamedSharding:
    """Where a leaf goes, by RULES; without one, its longest axis is cut."""
    if math.prod(shape) < SMALL:
        return NamedSharding(mesh, P())
    rules = (axes for rule, axes in RULES if re.search(f"(^|/){rule}$", path))
    first = 1 if "blocks/" in path else 0  # a loop over layers takes whole layers
    axes = next(rules, None)
    if axes is None:
        longest = max(range(first, len(shape)), key=lambda i: shape[i])
        axes = (STORED, *(None,) * (len(shape) - longest - 1))
    axes = (None,) * (len(shape) - len(axes)) + axes
    return NamedSharding(mesh, fitting(mesh.shape, shape, axes))


def shardings(mesh: Mesh, abstract):
    """`placement` of a whole tree: parameters, their average, the optimiser's moments."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: placement(mesh, path_of(keys), leaf.shape), abstract
    )


def table(abstract) -> Iterator[str]:
    """A line a leaf: its path, type and shape, the mesh axes that cut each dimension, MiB
    in all and MiB on a device. Leaves are shapes with shardings, or arrays."""
    row = "{:72} {:9} {:20} {:28} {:>10} {:>10}"
    yield row.format("leaf", "type", "shape", "cut by", "MiB", "a device")
    for keys, leaf in jax.tree_util.tree_leaves_with_path(abstract):
        spec = leaf.sharding.spec
        cut = ["x".join((a,) if isinstance(a, str) else a or "-") for a in spec]
        sizes = leaf.shape, leaf.sharding.shard_shape(leaf.shape)
        mib = [f"{math.prod(x) * leaf.dtype.itemsize / 2**20:,.2f}" for x in sizes]
        shape = " ".join(map(str, leaf.shape))
        yield row.format(path_of(keys), str(leaf.dtype), shape, " ".join(cut), *mib)


def path_of(keys) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")
