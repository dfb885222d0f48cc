"""What methods that denoise a latent share: the loss at a random noise level, the draw.

A method brings its network as `net(x, time)`, conditions inside, x f[B,...] and time f[B]
in 0..1000. `anchor` f[B,...] is what it knows of x0 beforehand, which prediction "residual"
starts from (train/flow.py).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from w4d_jax.sample.guidance import guided
from w4d_jax.sample.solver import (
    bfloat16_times,
    euler,
    even_schedule,
    integrate,
    unipc,
    unipc_schedule,
)
from w4d_jax.train import flow
from w4d_jax.train.flow import Estimate

Net = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """What the network predicts and at which noise levels it learns."""

    prediction: flow.Prediction = "velocity"
    shift: float = 1.0  # of the uniform noise levels in training
    floor: float = 1.0  # of sigma in the clean loss
    levels: Literal["even", "bell"] = "even"  # how levels weigh: alike, or WristWorld's way


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """The references run 50 steps with guidance "reference" at 5: Kinema4D unipc, shift 3;
    WristWorld euler_bfloat16, shift 5."""

    solver: Literal["euler", "euler_bfloat16", "unipc"] = "euler"
    steps: int = 50
    shift: float = 3.0
    # sample/guidance.py; all but "off" run two forwards a step
    guidance: Literal["off", "cfg", "reference"] = "off"
    scale: float = 5.0


def losses(config: FlowConfig, net: Net, x0, key, anchor: Any = 0.0, weight: Any = 1.0):
    """Flow matching: the loss of each sample f32[B], and what was believed of x0 f[B,...].

    weight: broadcasts against x0 and is normalised away.
    """
    level, noise = jax.random.split(key)
    sigma = flow.uniform_sigma(level, x0.shape[0], config.shift)
    eps = jax.random.normal(noise, x0.shape)
    believed = estimate(config, net, flow.noised(x0, eps, sigma), sigma, anchor)
    if config.prediction == "velocity":
        each = flow.velocity_loss(believed.velocity, x0, eps, weight)
    else:
        each = flow.clean_loss(believed.clean, x0, sigma, config.floor, weight)
    if config.levels == "bell":
        table = flow.training_table(shift=config.shift)
        each = each * jnp.interp(sigma, table.sigmas[::-1], flow.bell_weights(table)[::-1])
    return each, believed.clean


def estimate(
    config: FlowConfig, net: Net, x, sigma, anchor: Any = 0.0, time=None
) -> Estimate:
    """What the network believes at x f[B,...] and sigma f[B]; time: 1000 sigma if None."""
    time = 1000 * sigma if time is None else time
    residual = config.prediction == "residual"
    output = net(flow.shown(x, sigma, anchor) if residual else x, time)
    return flow.estimate(config.prediction, output, x, sigma, anchor)


def field(config: FlowConfig, net: Net, anchor: Any = 0.0) -> Callable:
    """The velocity (x, sigma f[], timestep f[]) -> f[B,...] that solvers follow."""

    def velocity(x, sigma, timestep):
        sigma, time = (jnp.full(x.shape[0], value) for value in (sigma, timestep))
        return estimate(config, net, x, sigma, anchor, time).velocity

    return velocity


def draw(config: SamplerConfig, velocity, other, x):
    """From noise x f[B,...] to a sample, guided away from `other` where there is one."""
    solver, schedule = {
        "euler": (euler, even_schedule),
        "euler_bfloat16": (euler, lambda *given: bfloat16_times(even_schedule(*given))),
        "unipc": (unipc, unipc_schedule),
    }[config.solver]
    velocity = guided(velocity, other, config.scale)
    return integrate(velocity, x, schedule(config.steps, config.shift), solver)
