"""AdamW, and Muon for training from nothing: the only file that builds an optimiser."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from w4d_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """lr is the peak; warmup counts steps; "cosine" goes to 0 at the last step.

    muon: the peak learning rate of Muon, which makes every step of a matrix orthogonal
    (Jordan et al. 2024), on the blocks' matrices; 0 leaves them to AdamW, as references do.
    parts: subtrees of what trains, each with a number that its learning rates are
    multiplied by; each is clipped by its own norm.
    """

    lr: float
    muon: float = 0.0
    warmup: int = 100
    decay: Literal["constant", "cosine"] = "constant"
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 1e-4
    clip: float = 1.0  # global norm of the gradient
    ema: float = 0.999  # decay of the averaged parameters that are sampled from; 0 = none
    parts: tuple[tuple[str, float], ...] = ()


def schedule(config: OptimizerConfig, peak: float, steps: int) -> optax.Schedule:
    """Linear from 0 to the peak over `warmup` steps, then constant or cosine to 0."""
    if config.decay == "cosine":
        rest = optax.cosine_decay_schedule(peak, max(steps - config.warmup, 1))
    else:
        rest = optax.constant_schedule(peak)
    ramp = optax.linear_schedule(0.0, peak, max(config.warmup, 1))
    return optax.join_schedules([ramp, rest], [config.warmup])


def optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW on every leaf, as the references run it; or Muon on
    the matrices and AdamW on what is left."""
    whole = clipped(config, 1.0, steps)
    if not config.parts:
        return whole
    parts = {name: clipped(config, rate, steps) for name, rate in config.parts}

    def part(params):
        missing = sorted(set(parts) - set(params))
        if missing:
            raise InputError(
                f"optimizer.parts: no {', '.join(missing)} trains, but {', '.join(params)}"
            )
        return {
            name: jax.tree.map(lambda _, name=name: name if name in parts else "", tree)
            for name, tree in params.items()
        }

    return optax.partition({"": whole, **parts}, part)


def clipped(config: OptimizerConfig, rate: float, steps: int):
    step = optax.adamw(
        schedule(config, rate * config.lr, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    if config.muon:
        matrices = optax.contrib.muon(
            schedule(config, rate * config.muon, steps),
            muon_weight_dimension_numbers=lambda params: jax.tree.map(
                lambda _: optax.contrib.MuonDimensionNumbers(1, 2), params
            ),
        )
        step = optax.partition({True: matrices, False: step}, stacked_matrices)
    return optax.chain(optax.clip_by_global_norm(config.clip), step)


def stacked_matrices(params):
    """Which leaves are the matrices of a stack of layers, [layer, in, out].

    Maps from and to what is not features (pixels, channels, time) are none of them.
    """

    def is_one(path, x):
        return path[-1].key == "kernel" and x.ndim == 3

    return jax.tree_util.tree_map_with_path(is_one, params)


def average(ema, params, step, decay: float):
    """Exponential moving average; its decay ramps up: early samples are not noise."""
    ramped = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.tree.add(
        optax.tree.scale(ramped, ema), optax.tree.scale(1.0 - ramped, params)
    )
