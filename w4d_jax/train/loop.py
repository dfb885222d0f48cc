"""Training, as one page: what is learned, from what, where it lives, and the loop."""

import math
import signal
from contextlib import closing
from pathlib import Path

import jax

from w4d_jax.data.pipeline import batches
from w4d_jax.data.source import open_source
from w4d_jax.sample.preview import image, save_preview
from w4d_jax.train.config import filled
from w4d_jax.train.meter import Meter
from w4d_jax.train.optim import OptimizerConfig, optimizer
from w4d_jax.train.save import Checkpoints
from w4d_jax.train.shard import batch_sharding, make_mesh, state_shardings
from w4d_jax.train.state import init_state, make_update
from w4d_jax.train.task import build
from w4d_jax.train.workdir import check_same, claim
from w4d_jax.types import InputError


def run(config, workdir: Path) -> None:
    """Trains to `config.steps`, from the newest checkpoint in `workdir` if there is one."""
    check_same(workdir, config)

    # ------ what is learned
    task = build(config)
    opt = filled(OptimizerConfig, config.optimizer, "optimizer")
    tx = optimizer(opt, config.steps)
    key = jax.random.key(config.seed)

    # ------ where it lives
    mesh = make_mesh(config.mesh)
    spread = batch_sharding(mesh, config.batch)

    def start(key):
        params, frozen = task.init(key)
        return init_state(params, tx), frozen

    placed = state_shardings(mesh, jax.eval_shape(start, key))
    update = jax.jit(
        make_update(task.loss, tx, opt.ema),
        donate_argnums=0,
        out_shardings=(placed[0], None),
    )
    sample = jax.jit(task.sample)

    # ------ what it learns from
    size = {name: config.data[name] for name in ("frames", "height", "width", "view")}
    train, test = open_source(config.data, "train"), open_source(config.data, "test")
    data = iter(batches(train, batch=config.batch, seed=config.seed, **size))
    once = {"shuffle": False, "repeat": False, "threads": 0, "prefetch": 0}
    held_out = next(iter(batches(test, batch=4, **once, **size)))
    held_out.pop("id")

    # ------ where it was
    claim(workdir, config)
    state, frozen = jax.jit(start, out_shardings=placed)(key)
    frozen = task.load(frozen)
    checkpoints = Checkpoints(workdir / "checkpoints", config.keep)
    resumed = checkpoints.restore(abstract(state), data)
    first, state = resumed or (0, state)

    def preview(step):
        made = jax.device_get(sample(state.ema, frozen, held_out, jax.random.key(step)))
        path = workdir / "samples" / f"step_{step:06d}.gif"
        save_preview(path, [held_out["rgb"], image(made.rgb), image(made.pointmap)])
        return path

    # ------ the loop
    meter = Meter(workdir, first, config.steps, config.log_every)
    with closing(checkpoints), closing(meter), Stop() as stop:
        pending = None  # metrics are read one step late, so that the device never waits
        for step in range(first + 1, config.steps + 1):
            batch = next(data)
            ids = batch.pop("id")
            state, metrics = update(state, frozen, jax.device_put(batch, spread), key)
            if pending is not None:
                settle(meter, *pending)
            pending = step, metrics, ids
            last = step == config.steps
            if stop.asked or last or step % config.checkpoint_every == 0:
                settle(meter, *pending)  # no state is saved that is not a number
                pending = None
                checkpoints.save(step, state, data)
            if stop.asked:
                meter.say(f"stopped at step {step}; the same command goes on from there")
                break
            if last or step % config.sample_every == 0:
                meter.say(f"step {step}: {preview(step)}")
    print(f"checkpoints: {workdir / 'checkpoints'}\nsamples: {workdir / 'samples'}")


def settle(meter: Meter, step: int, metrics, ids) -> None:
    """Reports a step's metrics; a loss that is not a number ends the run by name."""
    metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
    meter.report(step, metrics)
    if not math.isfinite(metrics["loss"]):
        raise InputError(
            f"step {step}: loss is {metrics['loss']}; clips {', '.join(map(str, ids))}; "
            "lower optimizer.lr, or resume from the last checkpoint with another seed"
        )


def abstract(state):
    """The state's shapes and shardings without its values."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


class Stop:
    """While open, SIGTERM or Ctrl-C asks to save and leave; a second one ends at once."""

    def __enter__(self):
        self.asked = False
        self._before = {
            number: signal.signal(number, self._ask)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def _ask(self, number, frame):
        self.asked = True
        signal.signal(number, self._before[number])

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)
