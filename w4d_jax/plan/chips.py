"""Accelerators: what a chip has, and the devices of a slice that need not be here."""

import os
from typing import NamedTuple

import jax
from jax.experimental import topologies

from w4d_jax.types import InputError

GB = 1e9


class Chip(NamedTuple):
    """Published figures of one JAX device; None where there are none to compare with."""

    kind: str  # as `jax.Device.device_kind` says
    flops: float | None = None  # a second, dense bfloat16
    hbm: float | None = None  # bytes
    bandwidth: float | None = None  # of the HBM, bytes a second
    links: float | None = None  # all links to other chips together, bytes a second


# cloud.google.com/tpu/docs, and NVIDIA's data sheets (NVLink counted one way).
CHIPS = {
    "v5e": Chip("TPU v5 lite", 197e12, 16 * GB, 819 * GB, 200 * GB),
    "v5p": Chip("TPU v5", 459e12, 95 * GB, 2765 * GB, 600 * GB),
    "v6e": Chip("TPU v6 lite", 918e12, 32 * GB, 1600 * GB, 400 * GB),
    "H100": Chip("NVIDIA H100 80GB HBM3", 989e12, 80 * GB, 3350 * GB, 450 * GB),
    "H200": Chip("NVIDIA H200", 989e12, 141 * GB, 4800 * GB, 450 * GB),
}
FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
DEEP = ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
SLICES = {"v5e": FLAT, "v5p": DEEP, "v6e": FLAT}


def devices_of(topology: str) -> tuple[list, Chip]:
    """The devices of "v5p:2x2x1" or of "local", and the chip that they are.

    Raises InputError for a slice that is not one, or where libtpu is not installed.
    """
    if topology == "local":
        devices = jax.devices()
        kind = devices[0].device_kind
        known = (chip for chip in CHIPS.values() if chip.kind == kind)
        return devices, next(known, Chip(kind))
    name, _, shape = topology.partition(":")
    if shape not in SLICES.get(name, ()):
        known = "; ".join(f"{name}: {' '.join(of)}" for name, of in SLICES.items())
        raise InputError(f"topology {topology!r}: need local or NAME:SHAPE of {known}")
    try:
        import libtpu  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"topology {topology}: libtpu is not installed, whose compiler this needs; "
            "uv sync --extra plan (or local, for the devices that are here)"
        ) from error
    jax.config.update("jax_platforms", "cpu")  # nothing here is to run on anything else
    # libtpu asks the machine what it is, complains at length of one that is no TPU, and
    # keeps other processes from a chip that this one does not touch.
    told = {
        "TPU_ACCELERATOR_TYPE": "v5p-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    for key, value in told.items():
        os.environ.setdefault(key, value)
    sizes = [int(n) for n in shape.split("x")]
    host = [min(2, n) for n in (*sizes, 1)[:2]] + [1]  # chips that one host holds
    made = topologies.get_topology_desc(
        platform="tpu", topology_name=topology, chips_per_host_bounds=host
    )
    return list(made.devices), CHIPS[name]
