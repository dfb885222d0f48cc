"""Which meshes, parts of a batch and rematerialisations to try, the most promising first.

Compiling takes minutes, so the order comes from a rough model: operations at a plausible
share of the peak, plus what has to travel. What fits is the compiler's to say.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from w4d_jax.nets.flops import Forward
from w4d_jax.plan.chips import Chip
from w4d_jax.plan.model import Model

REACHED = 0.6  # of a chip's peak, by products that nothing holds up
ROOM = 0.95  # of a chip's memory: what is estimated to need more is not compiled
WORK = 70  # bytes for each number of the residual stream while a layer runs, as measured
# What a layer keeps of each token for the backward pass, in widths of bfloat16.
KEPT = {"full": 1, "attention": 2, "offload": 0}


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


def executed(forward: Forward, remat: str) -> float:
    """Operations of an example's step, with what is computed again."""
    again = {
        "none": 0.0,
        "full": forward.total,
        "attention": forward.linear + forward.pairs,
        "offload": forward.linear + forward.pairs,
    }
    return forward.step + again[remat]


def plans(batch: int, model: Model, size: Size, chip: Chip, devices: int) -> list[Plan]:
    """Those that may fit, the fastest first and then the smallest; all on unknown chips."""
    found = [
        plan
        for plan in _all(batch, model.dit.heads, devices)
        if chip.hbm is None or memory(plan, batch, model, size) < ROOM * chip.hbm
    ]

    def order(plan):
        needed = memory(plan, batch, model, size)
        return round(seconds(plan, batch, model, size, chip), 2), needed

    return sorted(found, key=order)


def _all(batch: int, heads: int, devices: int) -> Iterator[Plan]:
    """Whole heads for every device of `seq` and `tensor`: rings are for those who ask."""
    divisors = [n for n in range(1, devices + 1) if devices % n == 0]
    for seq, tensor in itertools.product(divisors, (1, 2, 4, 8)):
        fsdp = devices // (seq * tensor)
        if fsdp * seq * tensor != devices or batch % fsdp or heads % (seq * tensor):
            continue
        for parts in (n for n in range(1, batch // fsdp + 1) if batch // fsdp % n == 0):
            mesh = {"data": 1, "fsdp": fsdp, "seq": seq, "tensor": tensor}
            yield from (Plan(mesh, parts, remat) for remat in KEPT)


def memory(plan: Plan, batch: int, model: Model, size: Size) -> float:
    """Bytes on a device, roughly."""
    cut = plan.mesh["fsdp"] * plan.mesh["seq"] * plan.mesh["tensor"]
    sums = 2 if plan.accumulate > 1 else 1
    here = _tokens(plan, batch, model)
    kept = model.dit.layers * here * model.dit.width * 2 * KEPT[plan.remat]
    layer = size.blocks / model.dit.layers / plan.mesh["tensor"]
    work = here * model.dit.width * WORK + 2 * layer
    held = (size.state + size.frozen + sums * size.gradient) / cut
    return held + size.coders + kept + work


def seconds(plan: Plan, batch: int, model: Model, size: Size, chip: Chip) -> float:
    """Of a step, roughly: the sum of what is computed and what is sent."""
    devices = math.prod(plan.mesh.values())
    flops = executed(model.forward, plan.remat) * batch / devices
    # Weights come in for either pass of every part; with tensor-parallel layers, four sums
    # of the residual stream a layer; with Ulysses, twelve trades.
    stream = _tokens(plan, batch, model) * model.dit.width * 2 * plan.accumulate
    sent = 2 * plan.accumulate * size.blocks / plan.mesh["tensor"]
    if not size.frozen:
        sent += plan.accumulate * size.gradient / plan.mesh["tensor"]
    if plan.mesh["tensor"] > 1:
        sent += 8 * 2 * stream * model.dit.layers
    if plan.mesh["seq"] > 1:
        sent += 12 * stream * model.dit.layers / plan.mesh["tensor"]
    if plan.remat == "offload":  # over the host's far slower bus
        sent += 20 * 4 * stream * model.dit.layers
    return flops / (REACHED * (chip.flops or 1.0)) + sent / (chip.links or math.inf)


def _tokens(plan: Plan, batch: int, model: Model) -> float:
    """Tokens on a device at a time."""
    examples = batch / (plan.mesh["data"] * plan.mesh["fsdp"] * plan.accumulate)
    return examples * math.ceil(model.tokens / plan.mesh["seq"])
