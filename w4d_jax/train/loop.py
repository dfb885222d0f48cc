"""Training, as one page: what is learned, from what, where it lives, and the loop."""

import json
import os
import signal
from pathlib import Path

import jax
import numpy as np

from w4d_jax.data.pipeline import batches
from w4d_jax.data.source import open_source
from w4d_jax.sample.preview import image, save_preview
from w4d_jax.train.meter import Meter
from w4d_jax.train.optim import OptimizerConfig, optimizer
from w4d_jax.train.save import Checkpoints
from w4d_jax.train.shard import batch_sharding, make_mesh, state_shardings
from w4d_jax.train.state import init_state, make_update
from w4d_jax.train.task import build
from w4d_jax.types import InputError


def run(config, workdir: Path) -> None:
    """Trains to `config.steps`, from the newest checkpoint in `workdir` if there is one."""
    claim(workdir, config)
    stop = Stop()

    # ------ what is learned
    task = build(config)
    opt = OptimizerConfig(**config.optimizer)
    tx = optimizer(opt, config.steps)
    key = jax.random.key(config.seed)

    def start(key):
        params, frozen = task.init(key)
        return init_state(params, tx), frozen

    # ------ where it lives
    mesh = make_mesh(config.mesh)
    spread = batch_sharding(mesh)
    placed = state_shardings(mesh, jax.eval_shape(start, key))
    state, frozen = jax.jit(start, out_shardings=placed)(key)
    update = jax.jit(
        make_update(task.loss, tx, opt.ema),
        donate_argnums=0,
        out_shardings=(placed[0], None),
    )
    sample = jax.jit(task.sample)

    # ------ what it learns from
    size = {name: config.data[name] for name in ("frames", "height", "width", "view")}
    train = open_source(config.data, "train")
    data = iter(batches(train, batch=config.batch, seed=config.seed, **size))
    test = open_source(config.data, "test")
    held_out = next(iter(batches(test, batch=4, shuffle=False, **size)))
    held_out.pop("id")

    # ------ where it was
    checkpoints = Checkpoints(workdir / "checkpoints", config.keep)
    resumed = checkpoints.restore(abstract(state), data)
    first = 0
    if resumed is not None:
        first, state = resumed
    meter = Meter(workdir, first, config.steps)

    def preview(step):
        made = jax.device_get(sample(state.ema, frozen, held_out, jax.random.key(step)))
        path = workdir / "samples" / f"step_{step:06d}.gif"
        save_preview(path, [held_out["rgb"], image(made.rgb), image(made.pointmap)])
        return path

    # ------ the loop
    pending = None  # metrics are read one step late, so that the device never waits
    for step in range(first + 1, config.steps + 1):
        batch = next(data)
        ids = batch.pop("id")
        state, metrics = update(state, frozen, jax.device_put(batch, spread), key)
        if pending is not None:
            settle(meter, *pending)
        pending = (step, metrics, ids)
        last = step == config.steps or stop.asked
        if last or step % config.checkpoint_every == 0:
            settle(meter, *pending)
            pending = None
            checkpoints.save(step, state, data)
        if last or step % config.sample_every == 0:
            meter.say(f"step {step}: {preview(step)}")
        if last:
            break
    checkpoints.close()
    meter.close()
    print(f"checkpoints: {workdir / 'checkpoints'}\nsamples: {workdir / 'samples'}")


def settle(meter: Meter, step: int, metrics, ids) -> None:
    """Reports a step's metrics; a loss that is not a number ends the run by name."""
    metrics = jax.device_get(metrics)
    meter.report(step, metrics)
    if not np.isfinite(metrics["loss"]):
        raise InputError(
            f"step {step}: loss is {metrics['loss']}; clips {', '.join(map(str, ids))}; "
            "lower optimizer.lr, or resume from the last checkpoint with another seed"
        )


def abstract(state):
    """The state's shapes and shardings without its values."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def claim(workdir: Path, config) -> None:
    """Writes config.json, or checks that the run already there is of the same model."""
    path = workdir / "config.json"
    wanted = json.loads(config.to_json())
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        for part in ("model", "codec", "flow"):
            if found.get(part) != wanted.get(part):
                raise InputError(
                    f"workdir {workdir}: it holds a run with {part} {found.get(part)}, not "
                    f"{wanted.get(part)}; choose another --workdir"
                )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise InputError(f"workdir {workdir}: cannot write to it ({error})") from error


class Stop:
    """Turns SIGTERM into a request to save and leave after the current step."""

    def __init__(self):
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number, frame):
        self.asked = True
