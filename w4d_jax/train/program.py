"""What a run compiles: its start, a step of training, a draw of samples; on one mesh.

The loop runs these, and tools/plan.py compiles the same for machines that are not here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding

from w4d_jax.train.config import filled
from w4d_jax.train.optim import OptimizerConfig, optimizer
from w4d_jax.train.shard import batch_sharding, make_mesh, shardings
from w4d_jax.train.state import init_state, make_update
from w4d_jax.train.task import Task, build


class Program(NamedTuple):
    """Jitted functions. They are to be called, or lowered, under `jax.set_mesh(mesh)`."""

    task: Task
    mesh: Mesh
    spread: NamedSharding  # of a batch: by examples
    abstract: Any  # (state, frozen) as shapes, each with its sharding
    start: Callable  # key -> (state, frozen), random
    update: Callable  # state (donated), frozen, batch, key -> (state, metrics)
    sample: Callable  # params, frozen, batch, key -> what the task draws


def program(config, devices=None) -> Program:
    """The program of a config, on all devices of this machine or on those given.

    Raises InputError where the mesh fits neither the devices nor the batch nor the heads.
    """
    task = build(config)
    opt = filled(OptimizerConfig, config.optimizer, "optimizer")
    tx = optimizer(opt, config.steps)
    accumulate = config.accumulate
    mesh = make_mesh(config.mesh, devices)
    spread = batch_sharding(mesh, config.batch, accumulate)

    def start(key):
        params, frozen = task.init(key)
        return init_state(params, tx), frozen

    key = jax.random.key(0)
    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(start, key)
    placed = shardings(mesh, shapes)
    abstract = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        shapes,
        placed,
    )
    return Program(
        task,
        mesh,
        spread,
        abstract,
        jax.jit(start, out_shardings=placed),
        jax.jit(
            make_update(task.loss, tx, opt.ema, accumulate),
            donate_argnums=0,
            out_shardings=(placed[0], None),
        ),
        jax.jit(task.sample),
    )
