"""Rectified flow: noising, the reading of a network's output, losses, noise levels.

A sample x0 and unit noise eps are joined by a straight line,

    x_s = (1 - s) x0 + s eps,   dx/ds = v = eps - x0,   0 <= s <= 1 (sigma),

and the model time is t = 1000 s. Pure functions; sigma f[B] is always an argument.

What a network is asked for changes what it learns first. The three readings carry the same
information, x0 = x_s - s v, but not the same difficulty:

- velocity: the reference's. The output must contain the noise itself, in every channel; a
  small network spends its capacity there.
- clean: the output is x0, which lies on the data's low-dimensional set. v = (x_s - x0) / s
  is then derived. An error e of x0 is an error e / s of v, so that the velocity loss weighs
  it by 1 / s^2: unbounded as s -> 0, hence `floor`. The sampler is safe: it divides by the
  s it steps from, which is above 0, and a Euler step from s to r is the convex combination
  (r / s) x_s + (1 - r / s) x0.
- residual: the output is x0 minus an anchor known beforehand (the condition: the first
  frame held still). A zero-initialised head starts at "nothing moves" and learns the rest.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Prediction = Literal["velocity", "clean", "residual"]


def over(sigma, x):
    """sigma f[B] shaped to broadcast against x f[B,...]."""
    return jnp.reshape(sigma, jnp.shape(sigma) + (1,) * (jnp.ndim(x) - jnp.ndim(sigma)))


def noised(x0, eps, sigma):
    """x_s = (1 - s) x0 + s eps. x0, eps f[B,...], sigma f[B] -> f[B,...]."""
    s = over(sigma, x0)
    return (1 - s) * x0 + s * eps


class Estimate(NamedTuple):
    """What the network believes, both ways. f[B,...] each."""

    clean: jax.Array  # of x0
    velocity: jax.Array  # of eps - x0


def estimate(prediction: Prediction, output, x, sigma, anchor: Any = 0.0) -> Estimate:
    """Reads a network's output at x = x_s f[B,...], 0 < sigma f[B] <= 1.

    anchor f[B,...]: what `residual` adds to; unused otherwise.
    """
    s = over(sigma, x)
    if prediction == "velocity":
        return Estimate(x - s * output, output)
    if prediction not in ("clean", "residual"):
        raise ValueError(f"prediction {prediction!r}: need velocity, clean or residual")
    clean = output + anchor if prediction == "residual" else output
    return Estimate(clean, (x - clean) / s)


def shown(x, sigma, anchor):
    """What a network that predicts the residual r = x0 - anchor looks at: the best linear
    estimate of r from x_s, for r of unit size,

        (1 - s) / ((1 - s)^2 + s^2) (x_s - (1 - s) anchor),

    where the last factor is (1 - s) r + s eps. At s = 1, where x_s says nothing of r, it is
    0: no noise passes into what is predicted.
    """
    s = over(sigma, x)
    return (1 - s) / ((1 - s) ** 2 + s**2) * (x - (1 - s) * anchor)


def velocity_loss(velocity, x0, eps, weight=1.0):
    """Mean of |v - (eps - x0)|^2 over each sample: the reference's loss. -> f32[B].

    weight: broadcasts against x0 (modalities, frames, pixels) and is normalised away.
    """
    return _mean_square(velocity - (eps - x0), weight)


def clean_loss(clean, x0, sigma, floor=1.0, weight=1.0):
    """Mean of |x0' - x0|^2 / max(s, floor)^2 over each sample -> f32[B].

    floor = 1 is the plain squared error of the sample, which favours what is visible.
    floor -> 0 is the velocity loss of the same estimate; 0.05 keeps its weight below 400.
    """
    return _mean_square((clean - x0) / over(jnp.maximum(sigma, floor), x0), weight)


def _mean_square(error, weight):
    error = jnp.square(error.astype(jnp.float32))
    weight = jnp.broadcast_to(jnp.asarray(weight, jnp.float32), error.shape)
    axes = tuple(range(1, error.ndim))
    return jnp.sum(weight * error, axes) / jnp.sum(weight, axes)


# Noise levels -----------------------------------------------------------------------------


def shifted(sigma, shift):
    """k s / (1 + (k - 1) s): k > 1 moves the levels towards noise; 0 and 1 stay put."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def strata(key, batch: int):
    """Uniform on [0, 1) each, evenly spaced together: a batch covers all noise levels."""
    offset, order = jax.random.split(key)
    u = (jnp.arange(batch) + jax.random.uniform(offset)) / batch
    return jax.random.permutation(order, u)


def uniform_sigma(key, batch: int, shift=1.0):
    """Shifted uniform noise levels, f32[B] in [0.001, 1]."""
    return shifted(1.0 - 0.999 * strata(key, batch), shift)


def logit_normal_sigma(key, batch: int, mean=0.0, std=1.0):
    """sigmoid(mean + std n), n normal: most levels in the middle, f32[B] in (0, 1).

    A shift by k is mean + log k.
    """
    u = jnp.clip(strata(key, batch), 1e-6, 1 - 1e-6)
    return jax.nn.sigmoid(mean + std * jax.scipy.special.ndtri(u))


class Table(NamedTuple):
    """Discrete noise levels, noisiest first."""

    timesteps: np.ndarray  # f32[N], 1000 sigma in float32: ten of the 1000 are not whole
    sigmas: np.ndarray  # f32[N]


def training_table(steps: int = 1000, shift: float = 1.0) -> Table:
    """The reference's: sigma = 1, 0.999, ..., 0.001 before the shift (its shift is 1)."""
    sigmas = np.linspace(1, steps, steps, dtype=np.float32)[::-1] / np.float32(steps)
    sigmas = shifted(sigmas, np.float32(shift))
    return Table(sigmas * np.float32(steps), sigmas)


def bell_weights(table: Table) -> np.ndarray:
    """WristWorld's loss weight of each level: exp(-2 (t/1000 - 1/2)^2) less its smallest,
    of mean 1. The ends, where little can be learned, count least. f32[N]."""
    bell = np.exp(-2 * (table.timesteps.astype(np.float64) / 1000 - 0.5) ** 2)
    bell -= bell.min()
    return (bell / bell.mean()).astype(np.float32)


def as_bfloat16(table: Table) -> Table:
    """The sigmas that training in bfloat16 sees: 506 distinct values of the 1000."""
    return table._replace(sigmas=table.sigmas.astype(jnp.bfloat16).astype(np.float32))


def table_sigma(key, batch: int, table: Table):
    """Independent uniform draws from a table -> (timesteps f32[B], sigmas f32[B])."""
    index = jax.random.randint(key, (batch,), 0, len(table.sigmas))
    return jnp.asarray(table.timesteps)[index], jnp.asarray(table.sigmas)[index]
