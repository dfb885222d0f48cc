"""A finished (or running) run as something to sample from."""

from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax

from w4d_jax.train.config import filled
from w4d_jax.train.optim import OptimizerConfig, optimizer
from w4d_jax.train.save import UNWANTED, Checkpoints
from w4d_jax.train.state import init_state
from w4d_jax.train.task import Task, build
from w4d_jax.train.workdir import read_config
from w4d_jax.types import InputError


class Trained(NamedTuple):
    """What sampling needs of a run."""

    config: Any  # its ConfigDict
    task: Task
    params: Any  # the averaged parameters
    frozen: Any
    step: int


def load_trained(workdir) -> Trained:
    """The newest checkpoint of a workdir, on one device; optimiser state is not read."""
    found = load_averaged(workdir)
    # Checkpoints hold what trains. The rest is what the run's seed drew and files hold.
    key, task = jax.random.key(found.config.seed), found.task
    frozen = task.load(jax.jit(lambda key: task.init(key)[1])(key))
    return found._replace(frozen=frozen)


def load_averaged(workdir) -> Trained:
    """The same without what does not train."""
    workdir = Path(workdir)
    config: Any = read_config(workdir)
    task = build(config)
    if not config.steps:
        drawn = jax.jit(lambda key: task.init(key)[0])(jax.random.key(config.seed))
        return Trained(config, task, task.begin(drawn), None, 0)
    tx = optimizer(filled(OptimizerConfig, config.optimizer, "optimizer"), config.steps)
    key = jax.random.key(config.seed)
    params, _ = jax.eval_shape(task.init, key)
    wanted = jax.eval_shape(lambda p: init_state(p, tx), params)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), wanted.ema
    )
    unwanted = jax.tree.map(lambda _: UNWANTED, wanted)
    folder, restored = workdir / "checkpoints", None
    if folder.is_dir():
        with closing(Checkpoints(folder)) as checkpoints:
            restored = checkpoints.restore(unwanted._replace(ema=placed))
    if restored is None:
        raise InputError(f"checkpoint {workdir}: holds no checkpoint yet; train longer")
    step, state = restored
    return Trained(config, task, state.ema, None, step)
