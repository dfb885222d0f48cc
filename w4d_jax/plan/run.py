"""The planner: what to compile, in which order, and what to say of it."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from w4d_jax.nets.layout import BATCH
from w4d_jax.plan.chips import Chip, devices_of
from w4d_jax.plan.compiled import (
    QUICK,
    Compiled,
    TooLarge,
    compile_draw,
    compile_step,
)
from w4d_jax.plan.model import model_of
from w4d_jax.plan.report import summary
from w4d_jax.plan.search import Plan, Size, executed, plans
from w4d_jax.train.program import program
from w4d_jax.train.shard import path_of

ALONE = {"data": 1, "fsdp": 1, "seq": 1, "tensor": 1}


def plan(
    config,
    topology: str,
    *,
    as_given: bool = False,
    tries: int = 3,
    draw: bool = True,
    thorough: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """The report of tools/plan.py.

    as_given: with the config's own mesh, accumulation and rematerialisation. Otherwise the
    most promising `tries` of all are compiled, until one fits. draw: samples as well.
    thorough: with all the compiler's effort, as a run is compiled.
    """
    options = None if thorough or topology == "local" else QUICK
    devices, chip = devices_of(topology)
    model = model_of(config)
    report = {"config": config.name, "topology": topology, "chip": chip.kind}
    report |= {"devices": len(devices), "batch": config.batch, "tokens": model.tokens}
    report |= {"coders": model.coders, "tried": []}
    if as_given:
        remat = network(config).get("remat", "none")
        chosen = [Plan(dict(config.mesh), config.accumulate, remat)]
    else:
        size = size_of(config, devices)
        chosen = plans(config.batch, model, size, chip, len(devices))
        if not chosen:
            return report | {"verdict": too_large(size, chip)}

    for candidate in chosen[:tries]:
        say(f"compiling {candidate}")
        run = program(with_plan(config, candidate), devices)
        made = compile_step(run, model.batch(config.batch), options)
        report["tried"].append({"plan": str(candidate), "said": said(made, chip)})
        if isinstance(made, TooLarge):
            continue
        useful = config.batch * (model.step + model.coders)
        done = config.batch * (executed(model, candidate.remat) + model.coders)
        report["step"] = summary(made, useful, done, chip, len(devices))
        if draw:
            count = math.prod(run.mesh.shape[axis] for axis in BATCH)
            say(f"compiling a draw of {count} samples")
            drawn = compile_draw(run, model.clips(count), options)
            report["tried"].append({"plan": "its draw", "said": said(drawn, chip)})
            if isinstance(drawn, TooLarge):
                continue
            useful = count * model.drawn
            report["drawn"] = count
            report["draw"] = summary(drawn, useful, useful, chip, len(devices))
        report["plan"] = candidate._asdict()
        return report | {"verdict": f"fits: {flags(config, candidate)}"}
    return report | {
        "verdict": "does not fit as tried: more chips, more --tries, encoded clips "
        "(data.encoded.train), or another accumulate, remat or mesh"
    }


def with_plan(config, chosen: Plan):
    """A copy of the config that says what a plan says."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.mesh = chosen.mesh
        config.accumulate = chosen.accumulate
        network(config).remat = chosen.remat
    return config


def network(config):
    """The group of a config that names the transformer's sizes."""
    return config.model.get("dit", config.model)


def size_of(config, devices) -> Size:
    """From the shapes of all that is held, on a device alone."""
    alone = with_plan(config, Plan(ALONE, 1, "none"))
    state, frozen = program(alone, devices[:1]).abstract

    def weight(tree, kind: str = "", width: int = 0) -> float:
        """Bytes of what has `kind` in its path; `width` of a number, or its own."""
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        found = (x for keys, x in leaves if kind in path_of(keys))
        return sum(x.size * (width or x.dtype.itemsize) for x in found)

    used = jnp.dtype(network(config).get("dtype", "float32")).itemsize
    blocks = weight((state.params, frozen), "blocks/", used)
    coders = weight(frozen, "codec/")  # whole on every device
    rest = weight(frozen) - coders
    return Size(weight(state), weight(state.params), rest, coders, blocks)


def said(made: Compiled | TooLarge, chip: Chip) -> str:
    if isinstance(made, TooLarge):
        return f"needs {made.needed / 1e9:.1f} GB a device of {made.there / 1e9:.1f} GB"
    there = f" of {chip.hbm / 1e9:.0f} GB" if chip.hbm else ""
    return f"peak {made.peak / 1e9:.1f} GB a device{there}"


def flags(config, chosen: Plan) -> str:
    """How to run it."""
    remat = "model.dit.remat" if "dit" in config.model else "model.remat"
    given: dict[str, Any] = {f"mesh.{axis}": n for axis, n in chosen.mesh.items()}
    given |= {"accumulate": chosen.accumulate, remat: chosen.remat}
    return " ".join(f"--config.{key}={value}" for key, value in given.items())


def too_large(size: Size, chip: Chip) -> str:
    """Of a model that no plan makes fit: how many chips its weights alone ask for."""
    held = size.state + size.frozen + size.gradient
    return (
        f"does not fit: {held / 1e9:,.0f} GB of parameters, optimiser and gradients, and "
        f"{chip.hbm / 1e9 if chip.hbm else 0:.0f} GB a chip; "
        f"take more than {held / (chip.hbm or held):.0f} of them, or lora.rank"
    )
