"""AdamW with warm-up: the only file that builds an optimiser."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """lr is the peak; warmup counts steps; "cosine" goes to 0 at the last step."""

    lr: float
    warmup: int = 100
    decay: Literal["constant", "cosine"] = "constant"
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 1e-4
    clip: float = 1.0  # global norm of the gradient
    ema: float = 0.999  # decay of the averaged parameters that are sampled from; 0 = none


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear from 0 to lr over `warmup` steps, then constant or cosine to 0 at `steps`."""
    if config.decay == "cosine":
        rest = optax.cosine_decay_schedule(config.lr, max(steps - config.warmup, 1))
    else:
        rest = optax.constant_schedule(config.lr)
    ramp = optax.linear_schedule(0.0, config.lr, max(config.warmup, 1))
    return optax.join_schedules([ramp, rest], [config.warmup])


def optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW on every leaf, as the reference runs it."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate(config, steps),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
        ),
    )


def average(ema, params, step, decay: float):
    """Exponential moving average; its decay ramps up: early samples are not noise."""
    ramped = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.tree.add(
        optax.tree.scale(ramped, ema), optax.tree.scale(1.0 - ramped, params)
    )
