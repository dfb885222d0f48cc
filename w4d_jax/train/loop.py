"""Training, as one page: what is learned, from what, where it lives, and the loop."""

import math
import signal
from contextlib import closing
from pathlib import Path

import jax

from w4d_jax.data.pipeline import assemble
from w4d_jax.sample.preview import save_preview
from w4d_jax.train.meter import Meter
from w4d_jax.train.program import Program, program
from w4d_jax.train.save import Checkpoints
from w4d_jax.train.shard import repeated, table
from w4d_jax.train.state import started
from w4d_jax.train.workdir import check_same, claim
from w4d_jax.types import InputError


def run(config, workdir: Path) -> None:
    """Trains to `config.steps`, from the newest checkpoint in `workdir` if there is one.

    No steps: the workdir stands for what its config draws and imports, to be sampled from.
    """
    check_same(workdir, config)
    if not config.steps:
        claim(workdir, config)
        return
    made = program(config)
    with jax.set_mesh(made.mesh):
        train(config, made, workdir)


def train(config, made: Program, workdir: Path) -> None:
    """The run itself, with the mesh in context."""
    task, key = made.task, jax.random.key(config.seed)

    # ------ what it learns from
    data = iter(assemble(task.items("train"), config.batch, config.seed))
    once = {"shuffle": False, "repeat": False, "threads": 0, "prefetch": 0}
    held_out = next(iter(assemble(task.items("validation"), batch=4, **once)))
    held_out.pop("id")

    # ------ where it was
    claim(workdir, config)
    (workdir / "parameters.txt").write_text("\n".join([*table(made.abstract), ""]))
    state, frozen = made.start(key)
    frozen = task.load(frozen)
    checkpoints = Checkpoints(workdir / "checkpoints", config.keep)
    resumed = checkpoints.restore(made.abstract[0], data)
    first, state = resumed or (0, started(state, task.begin(state.params)))

    def preview(step):
        asked = jax.device_put(repeated(made.mesh, held_out), made.spread)
        drawn = made.sample(state.ema, frozen, asked, jax.random.key(step))
        drawn = jax.tree.map(lambda x: x[: len(held_out["rgb"])], jax.device_get(drawn))
        path = workdir / "samples" / f"step_{step:06d}.gif"
        save_preview(path, task.columns(held_out, drawn))
        return path

    # ------ the loop
    meter = Meter(workdir, first, config.steps, config.log_every)
    with closing(checkpoints), closing(meter), Stop() as stop:
        pending = None  # metrics are read one step late, so that the device never waits
        for step in range(first + 1, config.steps + 1):
            batch = next(data)
            ids = batch.pop("id")
            batch = jax.device_put(batch, made.spread)
            state, metrics = made.update(state, frozen, batch, key)
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
