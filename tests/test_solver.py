"""Solvers: the reference's trajectories, orders of accuracy, and exact cases."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w4d_jax.sample.guidance import guided
from w4d_jax.sample.solver import (
    Schedule,
    euler,
    euler_schedule,
    even_schedule,
    integrate,
    unipc,
    unipc_schedule,
)
from w4d_jax.types import InputError

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "kinema4d"


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip("golden files are not here")
    return dict(np.load(GOLDEN / "scheduler.npz"))


@pytest.fixture(scope="module")
def field(golden):
    def velocity(x, sigma, timestep):
        flat = x.reshape(len(x), -1)
        flat = jnp.matmul(flat, golden["A"].T, precision="highest") + golden["b"] * timestep
        return flat.reshape(x.shape)

    return velocity


def walk(velocity, x, schedule, solver):
    """The states of a Python loop over the pure step, from x before step 0."""
    method = solver(schedule)
    state = method.init(jnp.asarray(x))
    states, step = [state.x], jax.jit(method.step)
    for sigma, timestep, row in zip(
        schedule.sigmas, schedule.timesteps, method.table, strict=False
    ):
        state = step(state, velocity(state.x, np.float32(sigma), timestep), row)
        states.append(state.x)
    return np.stack(states)


@pytest.mark.parametrize("steps", [10, 50])
def test_unipc_schedule_of_the_reference(golden, steps):
    sigmas, timesteps = unipc_schedule(steps)
    np.testing.assert_allclose(sigmas, golden[f"unipc_sigmas_{steps}"], atol=1e-6)
    np.testing.assert_array_equal(timesteps, golden[f"unipc_timesteps_{steps}"])


def test_unipc_trajectory_of_the_reference(golden, field):
    states = walk(field, golden["x0"], unipc_schedule(10), unipc)
    np.testing.assert_allclose(states, golden["unipc_states_10"], atol=1e-5)
    end = integrate(field, golden["x0"], unipc_schedule(50), unipc)
    np.testing.assert_allclose(end, golden["unipc_final_50"], atol=1e-5)


def test_euler_trajectory_of_the_reference(golden, field):
    schedule = euler_schedule(10)
    np.testing.assert_allclose(schedule.sigmas, golden["euler_sigmas_10"], atol=1e-6)
    np.testing.assert_array_equal(schedule.timesteps, golden["euler_timesteps_10"])
    states = walk(field, golden["x0"], schedule, euler)
    np.testing.assert_allclose(states, golden["euler_states_10"], atol=1e-5)
    end = integrate(field, golden["x0"], schedule, euler)
    np.testing.assert_allclose(end, golden["euler_states_10"][-1], atol=1e-5)


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
    states = walk(
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
