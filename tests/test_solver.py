"""Solvers: orders of accuracy, and exact cases."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w4d_jax.parity.scheduler import walk
from w4d_jax.sample.guidance import guided
from w4d_jax.sample.solver import (
    Schedule,
    euler,
    even_schedule,
    integrate,
    unipc,
)
from w4d_jax.types import InputError


def gaussian(x, sigma, timestep, mean=0.7, std=0.4):
    """The exact velocity of rectified flow onto N(mean, std^2)."""
    variance = (1 - sigma) ** 2 * std**2 + sigma**2
    clean = mean + (1 - sigma) * std**2 / variance * (x - (1 - sigma) * mean)
    return (x - clean) / sigma


START = np.linspace(-2, 2, 9, dtype=np.float32)


def error(solver, steps):
    """Against the exact flow, (1 - s) mean + c sqrt(variance), from sigma 0.9 to 0.1."""
    sigmas = np.linspace(0.9, 0.1, steps + 1)
    end = integrate(gaussian, START, Schedule(sigmas, 1000 * sigmas[:-1]), solver)
    first, last = (np.sqrt((1 - s) ** 2 * 0.4**2 + s**2) for s in (0.9, 0.1))
    return np.abs(end - (0.9 * 0.7 + (START - 0.1 * 0.7) * last / first)).max()


def test_orders_of_accuracy():
    assert 1.7 < error(euler, 10) / error(euler, 20) < 2.4
    assert 3.3 < error(unipc, 10) / error(unipc, 20) < 10
    assert error(unipc, 20) < 0.2 * error(euler, 20)


@pytest.mark.parametrize("solver", [euler, unipc])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("schedule", [even_schedule, partial(even_schedule, shift=5.0)])
def test_a_fixed_clean_estimate_is_reached_exactly(solver, steps, schedule):
    target = np.float32([0.3, -1.2])
    states, _ = walk(
        lambda x, s, t: (x - target) / s, np.float32([5, -7]), schedule(steps), solver
    )
    assert np.isfinite(states).all()
    np.testing.assert_allclose(states[-1], target, atol=2e-6)


def test_timesteps_follow_sigmas_and_end_at_zero():
    sigmas, timesteps = even_schedule(10, shift=3.0)
    assert sigmas[0] == 1 and sigmas[-1] == 0 and len(timesteps) == 10
    np.testing.assert_allclose(timesteps, 1000 * sigmas[:-1], rtol=1e-6)
    with pytest.raises(InputError, match="steps=0: need at least 1"):
        even_schedule(0)


def test_the_velocity_is_traced_once_whatever_the_number_of_steps():
    calls = []

    def counted(x, sigma, timestep):
        calls.append(timestep)
        return -x

    integrate(counted, START, even_schedule(30), unipc)
    assert len(calls) == 1


def test_integrate_is_differentiable():
    def end(x):
        return integrate(gaussian, x, even_schedule(40), unipc).sum()

    np.testing.assert_allclose(jax.grad(end)(START), 0.4, atol=5e-3)


def test_guidance():
    def given(x, sigma, timestep):
        return 2 * x

    def other(x, sigma, timestep):
        return x

    x = jnp.ones(3)
    assert guided(given) is given  # off: one forward, the same function
    np.testing.assert_allclose(guided(given, other, 1.0)(x, 0.5, 500), 2)
    np.testing.assert_allclose(guided(given, other)(x, 0.5, 500), 1 + 5 * (2 - 1))
    np.testing.assert_allclose(guided(given, given)(x, 0.5, 500), 2)
