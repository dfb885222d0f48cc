"""Training, as one page: what is learned, from what, where it lives, and the loop."""

import math
from contextlib import closing
from pathlib import Path

import jax
from jax.experimental.multihost_utils import process_allgather

from w4d_jax.data.pipeline import assemble
from w4d_jax.sample.preview import save_preview
from w4d_jax.train.cluster import about_others, is_first, lost
from w4d_jax.train.feed import Feed
from w4d_jax.train.meter import Meter, Silence
from w4d_jax.train.program import Program, program
from w4d_jax.train.save import Checkpoints
from w4d_jax.train.shard import laid, repeated, table
from w4d_jax.train.state import started
from w4d_jax.train.stop import Stop
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
    try:
        with jax.set_mesh(made.mesh):
            train(config, made, workdir)
    except InputError:
        raise
    except Exception as error:
        if about_others(error):
            raise lost(error) from error
        if isinstance(error, OSError):
            raise InputError(f"workdir {workdir}: cannot write to it ({error})") from error
        raise


def train(config, made: Program, workdir: Path) -> None:
    """The run itself, with the mesh in context."""
    task, key, batch = made.task, jax.random.key(config.seed), config.batch

    # ------ what it learns from
    items = task.items("train")
    data = Feed(items, batch, config.seed, made.spread, config.get("patience", 600))
    once = {"shuffle": False, "repeat": False, "threads": 0, "prefetch": 0}
    held_out = next(iter(assemble(task.items("validation"), batch=4, **once)))
    held_out.pop("id")

    # ------ where it was
    if is_first():
        claim(workdir, config)
        (workdir / "parameters.txt").write_text("\n".join([*table(made.abstract), ""]))
    state, frozen = made.start(key)
    frozen = task.load(frozen)
    checkpoints = Checkpoints(workdir / "checkpoints", config.keep, clean=True)
    resumed = checkpoints.restore(made.abstract[0], data)
    first, state = resumed or (0, started(state, task.begin(state.params)))

    def preview(step):
        asked = repeated(made.mesh, held_out)
        count = len(asked["rgb"])
        asked = laid(made.spread, asked, [*range(count)], count)
        drawn = made.sample(state.ema, frozen, asked, jax.random.key(step))
        drawn = process_allgather(drawn, tiled=True)
        drawn = jax.tree.map(lambda x: x[: len(held_out["rgb"])], drawn)
        path = workdir / "samples" / f"step_{step:06d}.gif"
        if is_first():
            save_preview(path, task.columns(held_out, drawn))
        return path

    # ------ the loop
    steps, every = config.steps, config.log_every
    meter = Meter(workdir, first, steps, every) if is_first() else Silence()
    with checkpoints, closing(meter), Stop() as stop:
        late = []  # metrics are read one step late, so that the device never waits
        for step in range(first + 1, steps + 1):
            batch, ids = next(data)
            state, metrics = made.update(state, frozen, batch, key)
            wrong = settle(meter, late)
            late = [(step, metrics | {"waited": data.waited}, ids)]
            leaving, last = stop.after(step), step == steps
            if wrong or leaving or last or step % config.checkpoint_every == 0:
                wrong += settle(meter, late)
                late = []
                checkpoints.save(step, state, data)
            if wrong:
                raise InputError(
                    f"{wrong[0]}; its update is left out and the state saved as step "
                    f"{step}: the same command goes on, or lower optimizer.lr"
                )
            if leaving:
                meter.say(f"stopped at step {step}; the same command goes on from there")
                break
            if last or step % config.sample_every == 0:
                meter.say(f"step {step}: {preview(step)}")
    if is_first():
        print(f"checkpoints: {workdir / 'checkpoints'}\nsamples: {workdir / 'samples'}")


def settle(meter: Meter | Silence, late) -> list[str]:
    """Reports the metrics of steps; says where they are no number, and of which clips."""
    wrong = []
    for step, metrics, ids in late:
        metrics = {name: float(x) for name, x in jax.device_get(metrics).items()}
        meter.report(step, metrics)
        loss, norm = metrics["loss"], metrics["grad_norm"]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            said = f"step {step}: loss is {loss}, grad_norm {norm}"
            wrong.append(f"{said}; clips {', '.join(ids)}")
    return wrong
