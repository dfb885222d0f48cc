"""Solvers and noise levels: UniPC, flow Euler and the training table."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.parity.check import Check, compare
from w4d_jax.parity.golden import Arrays, load
from w4d_jax.sample.solver import euler, euler_schedule, integrate, unipc, unipc_schedule
from w4d_jax.train.flow import as_bfloat16, training_table


def checks(folder: Path) -> Iterator[Check]:
    z, config, _ = load(folder, "scheduler")

    def velocity(x, sigma, timestep):
        """v = A x + b t."""
        flat = jnp.matmul(x.reshape(len(x), -1), z["A"].T, precision="highest")
        return (flat + z["b"] * timestep).reshape(x.shape)

    for steps in _steps(z, "unipc_sigmas_"):
        schedule = unipc_schedule(steps, config["unipc"]["flow_shift"])
        name = f"unipc_sigmas_{steps}"
        yield compare(name, schedule.sigmas, z[name], 1e-6)
        name = f"unipc_timesteps_{steps}"
        yield compare(name, schedule.timesteps, z[name], 0)
        name = f"unipc_final_{steps}"
        if name in z:
            end = integrate(velocity, z["x0"], schedule, unipc)
            yield compare(name, end, z[name], 1e-5)
        name = f"unipc_states_{steps}"
        if name in z:
            states, velocities = walk(velocity, z["x0"], schedule, unipc)
            yield compare(name, states, z[name], 1e-5)
            name = f"unipc_velocity_{steps}"
            yield compare(name, velocities, z[name], 1e-5)

    for steps in _steps(z, "euler_sigmas_"):
        schedule = euler_schedule(steps, config["euler_shift"])
        for name, ours, tolerance in (
            (f"euler_sigmas_{steps}", schedule.sigmas, 1e-6),
            (f"euler_timesteps_{steps}", schedule.timesteps, 1e-4),
            (f"euler_states_{steps}", walk(velocity, z["x0"], schedule, euler)[0], 1e-5),
        ):
            yield compare(name, ours, z[name], tolerance)

    table = training_table(len(z["train_sigmas"]), config["euler_shift"])
    yield compare("train_timesteps", table.timesteps, z["train_timesteps"], 1e-4)
    yield compare("train_sigmas", table.sigmas, z["train_sigmas"], 1e-6)
    rounded = as_bfloat16(table).sigmas
    yield compare("train_sigmas_bf16", rounded, z["train_sigmas_bf16"], 0)


def walk(velocity, x, schedule, solver) -> tuple[np.ndarray, np.ndarray]:
    """The states before each step and after the last, and the velocity at each step."""
    method = solver(schedule)
    state = method.init(jnp.asarray(x))
    states, velocities, step = [state.x], [], jax.jit(method.step)
    for sigma, timestep, row in zip(
        schedule.sigmas[:-1], schedule.timesteps, method.table, strict=True
    ):
        velocities.append(velocity(state.x, np.float32(sigma), timestep))
        state = step(state, velocities[-1], row)
        states.append(state.x)
    return np.stack(states), np.stack(velocities)


def _steps(z: Arrays, prefix: str) -> list[int]:
    return [int(name.removeprefix(prefix)) for name in z if name.startswith(prefix)]
