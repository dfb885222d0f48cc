"""Integrating a velocity field from noise (sigma = 1) to a sample (sigma = 0).

A solver is a table with one row of float32 coefficients a step, computed beforehand in
float64, and two pure functions on its state. Everything that depends on the schedule alone
stands in the table, so that a step is a few multiply-adds and the loop compiles once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.train.flow import shifted
from w4d_jax.types import InputError


class Schedule(NamedTuple):
    """K steps. Host arrays: a schedule is known before anything is traced."""

    sigmas: np.ndarray  # f64[K+1], decreasing, the last one 0
    timesteps: np.ndarray  # f32[K], what the model is told, 0..1000


def even_schedule(steps: int, shift: float = 1.0, start: float = 1.0) -> Schedule:
    """Ours, and WristWorld's with shift 5: evenly spaced from `start` to 0, then shifted;
    timesteps are exactly 1000 sigma. Below 1, `start` is for x that is not all noise."""
    sigmas = shifted(np.linspace(start, 0, _count(steps) + 1), shift)
    return Schedule(sigmas, (1000 * sigmas[:-1]).astype(np.float32))


def bfloat16_times(schedule: Schedule) -> Schedule:
    """What WristWorld's network is told: above 512 only multiples of 4. The sigmas that the
    solver steps between stay exact."""
    return schedule._replace(
        timesteps=schedule.timesteps.astype(jnp.bfloat16).astype(np.float32)
    )


def euler_schedule(steps: int, shift: float = 1.0) -> Schedule:
    """The reference's flow-matching Euler levels: from 1 to 0.001, then 0. A shift moves
    the last level and then, once more, all of them."""
    last = float(np.float32(shifted(np.float32(0.001), np.float32(shift))))
    levels = shifted(np.linspace(1, last, _count(steps)), shift).astype(np.float32)
    return Schedule(np.append(levels.astype(np.float64), 0.0), levels * np.float32(1000))


def unipc_schedule(steps: int, shift: float = 3.0) -> Schedule:
    """The reference's sampler: the first sigma is 0.99967, and timesteps are cut to whole
    numbers while sigmas are not."""
    sigmas = shifted(np.linspace(0.999, 0, _count(steps) + 1), shift)
    return Schedule(sigmas, np.trunc(1000 * sigmas[:-1]).astype(np.float32))


def _count(steps: int) -> int:
    if steps < 1:
        raise InputError(f"steps={steps}: need at least 1")
    return steps


class Solver(NamedTuple):
    """init(x) -> state, and step(state, v, row) -> state, where v is the velocity at
    state.x and row one row of the table. Every state has a field x."""

    table: np.ndarray  # f32[K, coefficients]
    init: Callable[[Any], Any]
    step: Callable[[Any, Any, Any], Any]


class EulerState(NamedTuple):
    x: Any


def euler(schedule: Schedule) -> Solver:
    """x' = x + (r - s) v: first order, the plain choice."""
    table = np.diff(schedule.sigmas).astype(np.float32)[:, None]
    return Solver(table, EulerState, lambda state, v, row: EulerState(state.x + row[0] * v))


class UniPCState(NamedTuple):
    """All of x's shape. The clean estimates are zero until they exist."""

    x: Any  # where the velocity is asked for
    start: Any  # the corrected x that the last step started from
    clean: Any  # estimate of x0 at the last step
    before: Any  # and at the one before


def unipc(schedule: Schedule) -> Solver:
    """UniPC (arXiv 2302.04867): order 2, B(h) = e^h - 1, on estimates of x0 = x - s v.

    Each step first corrects x with the new estimate, then predicts the next x. The orders
    go 1, 2, ..., 2, 1. Both halves are linear in (x, start, estimates), hence the table.
    """
    table = _unipc_table(schedule.sigmas)

    def init(x):
        zero = jnp.zeros_like(x)
        return UniPCState(x, zero, zero, zero)

    def step(state, v, row):
        clean = state.x - row[0] * v
        x = (
            row[1] * state.x
            + row[2] * state.start
            + row[3] * state.before
            + row[4] * state.clean
            + row[5] * clean
        )
        after = row[6] * x + row[7] * state.clean + row[8] * clean
        return UniPCState(after, start=x, clean=clean, before=state.clean)

    return Solver(table, init, step)


def _unipc_table(sigmas) -> np.ndarray:
    """f32[K, 9]: sigma; corrector on (x, start, before, clean, new estimate); predictor on
    (corrected x, clean, new estimate)."""
    steps = len(sigmas) - 1
    table = np.zeros((steps, 9))
    table[:, 0] = sigmas[:-1]
    table[0, 1] = 1  # nothing to correct with at the first step
    for i in range(steps):
        if i > 0:
            table[i, 2:6] = _corrector(sigmas[max(i - 2, 0) : i + 1], order=min(2, i))
        order = min(2, i + 1, steps - i)
        table[i, 6:9] = _predictor(sigmas[max(i - 1, 0) : i + 2], order)
    return table.astype(np.float32)


def _predictor(sigmas, order: int):
    """From s to r = sigmas[-2:]: x_r = (r/s) x_s + (1-r) g (m0 + (m1 - m0) / 2k), where
    g = 1 - e^-h, h is the step in lambda and k h reaches back to m1's. On (x_s, m1, m0)."""
    s, r = sigmas[-2:]
    gain = (1 - r) * -np.expm1(-_step(s, r))
    if order == 1:
        return r / s, 0.0, gain
    m1 = 0.5 / _ratio(sigmas)
    return r / s, gain * m1, gain * (1 - m1)


def _corrector(sigmas, order: int):
    """The same step with the estimate m_r at its end known. On (x_s, m1, m0, m_r)."""
    s, r = sigmas[-2:]
    h = _step(s, r)
    gain = (1 - r) * -np.expm1(-h)
    if order == 1:
        return r / s, 0.0, 0.5 * gain, 0.5 * gain
    # g (m0 + rho1 (m1 - m0) / k + rho2 (m_r - m0)), where [[1, 1], [k, 1]] rho = b matches
    # the integral of e^lambda m(lambda) up to second order.
    k = _ratio(sigmas)
    phi2 = np.expm1(-h) / -h - 1
    phi3 = phi2 / -h - 0.5
    b1, b2 = phi2 / np.expm1(-h), 2 * phi3 / np.expm1(-h)
    rho1 = (b1 - b2) / (1 - k)
    rho2 = b1 - rho1
    return r / s, gain * rho1 / k, gain * (1 - rho1 / k - rho2), gain * rho2


def _lambda(sigma: float) -> float:
    """log((1 - sigma) / sigma): infinite at both ends, where the formulas have limits."""
    with np.errstate(divide="ignore"):
        return np.log1p(-sigma) - np.log(sigma)


def _step(s: float, r: float) -> float:
    return _lambda(r) - _lambda(s)


def _ratio(sigmas) -> float:
    """The last step in lambda over this one, backwards: negative, -1 for even steps."""
    q, s, r = sigmas
    return _step(s, q) / _step(s, r)


def integrate(velocity, x, schedule: Schedule, solver=euler):
    """Runs all steps in one `lax.scan`: one trace and one compilation, however many.

    velocity(x, sigma, timestep) -> f[B,...], called once a step; x f[B,...] at the first
    sigma -> f[B,...] at 0. solver: `euler` or `unipc`, a function Schedule -> Solver. For a
    progress bar, call its `step` in a Python loop instead.
    """
    method = solver(schedule)
    rows = (np.float32(schedule.sigmas[:-1]), schedule.timesteps, method.table)

    def body(state, row):
        sigma, timestep, coefficients = row
        return method.step(state, velocity(state.x, sigma, timestep), coefficients), None

    return jax.lax.scan(body, method.init(x), rows)[0].x
