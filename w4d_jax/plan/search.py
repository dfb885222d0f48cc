"""Which meshes, parts of a batch and rematerialisations to try, the most promising first.

Compiling takes minutes, so the order comes from a rough model: operations at a plausible
share of the peak, plus what has to travel. What fits is the compiler's to say.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from w4d_jax.plan.chips import Chip
from w4d_jax.plan.model import Model
from w4d_jax.types import InputError

REACHED = 0.6  # of a chip's peak, by products that nothing holds up
ROOM = 0.95  # of a chip's memory: what is estimated to need more is not compiled
WORK = 70  # bytes for each number of the residual stream while a layer runs, as measured
# What a layer keeps of each token for the backward pass, in widths of bfloat16; with "none"
# everything that trains: a guess, which only orders the tries.
KEPT = {"full": 1, "attention": 2, "offload": 0, "none": 40}


class Plan(NamedTuple):
    """What there is to choose."""

    mesh: dict[str, int]
    accumulate: int
    remat: str

    def __str__(self) -> str:
        sizes = " ".join(f"{axis}={n}" for axis, n in self.mesh.items() if n > 1)
        return f"{sizes or 'one device'}, accumulate {self.accumulate}, remat {self.remat}"


class Size(NamedTuple):
    """Bytes of a whole model, before it is cut."""

    state: float  # parameters that train, their average, the optimiser's moments
    gradient: float
    frozen: float
    coders: float  # of the frozen ones that are not cut
    blocks: float  # all layers' matrices as they are multiplied


def executed(model: Model, remat: str) -> float:
    """Operations of an example's step, with what is computed again."""
    forward = model.forward
    again = {
        "none": 0.0,
        "full": forward.total,
        "attention": forward.linear + forward.pairs,
        "offload": forward.linear + forward.pairs,
    }
    return model.step + again[remat]


def plans(batch: int, model: Model, size: Size, chip: Chip, devices: int) -> list[Plan]:
    """Those that may fit, the fastest first and then the smallest; all on unknown chips.

    Raises InputError where no mesh goes round the devices.
    """
    every = list(_all(batch, model, devices))
    if not every:
        heads = model.net.heads
        cut = max(n for n in range(1, heads + 1) if heads % n == devices % n == 0)
        raise InputError(
            f"batch={batch} and heads={heads} do not go round {devices} devices: need a "
            f"batch that is a multiple of {devices // cut}, for a mesh of "
            f"fsdp={devices // cut} seq={cut}"
        )
    found = [
        plan
        for plan in every
        if chip.hbm is None or memory(plan, batch, model, size) < ROOM * chip.hbm
    ]

    def order(plan):
        needed = memory(plan, batch, model, size)
        return round(seconds(plan, batch, model, size, chip), 2), needed

    return sorted(found, key=order)


def _all(batch: int, model: Model, devices: int) -> Iterator[Plan]:
    """Whole heads for every device of `seq` and `tensor`: rings are for those who ask."""
    divisors = [n for n in range(1, devices + 1) if devices % n == 0]
    for seq, tensor in itertools.product(divisors, (1, 2, 4, 8)):
        fsdp = devices // (seq * tensor)
        if (
            fsdp * seq * tensor != devices
            or batch % fsdp
            or model.net.heads % (seq * tensor)
        ):
            continue
        for parts in (n for n in range(1, batch // fsdp + 1) if batch // fsdp % n == 0):
            mesh = {"data": 1, "fsdp": fsdp, "seq": seq, "tensor": tensor}
            yield from (Plan(mesh, parts, remat) for remat in model.remats)


def memory(plan: Plan, batch: int, model: Model, size: Size) -> float:
    """Bytes on a device, roughly."""
    cut = plan.mesh["fsdp"] * plan.mesh["seq"] * plan.mesh["tensor"]
    sums = 2 if plan.accumulate > 1 else 1
    here = _tokens(plan, batch, model)
    kept = model.net.layers * here * model.net.width * 2 * KEPT[plan.remat]
    layer = size.blocks / model.net.layers / plan.mesh["tensor"]
    work = here * model.net.width * WORK + 2 * layer
    held = (size.state + size.frozen + sums * size.gradient) / cut
    return held + size.coders + kept + work


def seconds(plan: Plan, batch: int, model: Model, size: Size, chip: Chip) -> float:
    """Of a step, roughly: the sum of what is computed and what is sent."""
    devices = math.prod(plan.mesh.values())
    flops = executed(model, plan.remat) * batch / devices
    # Weights come in for either pass of every part; with tensor-parallel layers, four sums
    # of the residual stream a layer; with Ulysses, twelve trades.
    stream = _tokens(plan, batch, model) * model.net.width * 2 * plan.accumulate
    sent = 2 * plan.accumulate * size.blocks / plan.mesh["tensor"]
    if not size.frozen:
        sent += plan.accumulate * size.gradient / plan.mesh["tensor"]
    if plan.mesh["tensor"] > 1:
        sent += 8 * 2 * stream * model.net.layers
    if plan.mesh["seq"] > 1:
        sent += 12 * stream * model.net.layers / plan.mesh["tensor"]
    if plan.remat == "offload":  # over the host's far slower bus
        sent += 20 * 4 * stream * model.net.layers
    return flops / (REACHED * (chip.flops or 1.0)) + sent / (chip.links or math.inf)


def _tokens(plan: Plan, batch: int, model: Model) -> float:
    """Tokens on a device at a time."""
    examples = batch / (plan.mesh["data"] * plan.mesh["fsdp"] * plan.accumulate)
    return examples * math.ceil(model.tokens / plan.mesh["seq"])
