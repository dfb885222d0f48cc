"""The loop: it learns, resumes to the bit, survives damage, and says what is wrong."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing

import jax
import jax.numpy as jnp
import kills
import numpy as np
import pytest
from runs import REPO, metrics_of, write_config, write_noise
from toy import devices, free_port

from w4d_jax.train import feed, loop
from w4d_jax.train.config import load_config, override
from w4d_jax.train.optim import OptimizerConfig, optimizer, schedule
from w4d_jax.train.save import Checkpoints
from w4d_jax.train.state import init_state, make_update
from w4d_jax.train.task import build
from w4d_jax.train.trained import load_trained
from w4d_jax.train.workdir import read_config
from w4d_jax.types import InputError


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with two stores and a config file."""
    home = tmp_path_factory.mktemp("train")
    train, test = write_noise(home / "train", range(6)), write_noise(home / "test", [8, 9])
    write_config(home / "config.py", train, test)
    return home


def run(home, workdir, **changes):
    """Trains in home/workdir; changes: key=text, with __ for the dots."""
    config = load_config(str(home / "config.py"))
    for key, text in changes.items():
        override(config, key.replace("__", "."), str(text))
    loop.run(config, home / workdir)
    return home / workdir


@pytest.fixture(scope="module")
def unbroken(home):
    return run(home, "unbroken")


def state_of(workdir):
    """The newest checkpoint: its step, its arrays by name, and where its data stood."""
    config = read_config(workdir)
    tx = optimizer(OptimizerConfig(**config.optimizer), config.steps)

    def start(key):
        return init_state(build(config).init(key)[0], tx)

    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        jax.eval_shape(start, jax.random.key(0)),
    )
    with closing(Checkpoints(workdir / "checkpoints")) as checkpoints:
        step, state = checkpoints.restore(wanted)
    (data,) = (workdir / f"checkpoints/{step}/data").glob("*.json")
    return step, state, data.read_text()


def assert_same_run(one, other):
    (step, state, data), (other_step, other_state, other_data) = map(state_of, (one, other))
    assert step == other_step == int(state.step) and data == other_data
    jax.tree.map(np.testing.assert_array_equal, state, other_state)
    for line, other_line in zip(metrics_of(one), metrics_of(other), strict=True):
        clock = {"seconds": 0, "waited": 0}
        assert line | clock == other_line | clock


def test_a_run_leaves_what_the_design_says(unbroken):
    lines = metrics_of(unbroken)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["loss"] > 0 and line["seconds"] > 0 for line in lines)
    assert json.loads((unbroken / "config.json").read_text())["steps"] == 4
    assert sorted(p.name for p in (unbroken / "checkpoints").iterdir()) == ["2", "4"]
    assert [p.name for p in (unbroken / "samples").iterdir()] == ["step_000004.gif"]
    assert list((unbroken / "tensorboard").iterdir())


def test_loss_falls_and_the_average_is_loaded(home):
    workdir = run(home, "longer", steps=60, log_every=20, checkpoint_every=60)
    lines = metrics_of(workdir)
    assert [line["step"] for line in lines] == [20, 40, 60]
    first, last = metrics_of(home / "unbroken")[0], lines[-1]
    # Whether what the hand met is taken along, nobody can tell from noise.
    before, after = (line["loss"] - line["outcome_error"] for line in (first, last))
    assert before > 1.2 * after
    trained = load_trained(workdir)
    assert trained.step == 60
    _, state, _ = state_of(workdir)
    jax.tree.map(np.testing.assert_array_equal, trained.params, state.ema)


def test_two_and_two_steps_are_four(home, unbroken):
    run(home, "parts", steps=2)
    run(home, "parts", steps=4)
    assert_same_run(home / "parts", unbroken)
    assert len(list((home / "parts" / "samples").iterdir())) == 2


def test_stopped_between_checkpoints_and_damaged(home, unbroken, caplog):
    """Lines beyond the checkpoint are dropped; a damaged checkpoint is passed over."""
    killed = home / "killed"
    shutil.copytree(unbroken, killed)
    arrays = [p for p in (killed / "checkpoints/4/state/d").iterdir() if p.is_file()]
    for path in arrays:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss"')
    run(home, "killed")
    assert "killed/checkpoints/4 cannot be read: " in caplog.text
    assert len(caplog.text) < 500
    assert_same_run(killed, unbroken)


def test_all_checkpoints_damaged(home, unbroken):
    lost = home / "lost"
    shutil.copytree(unbroken, lost)
    for path in (lost / "checkpoints").glob("*/state/manifest.ocdbt"):
        path.unlink()
    with pytest.raises(InputError, match=r"none of steps \[4, 2\] can be read"):
        run(home, "lost")


def test_another_model_is_refused(home, unbroken):
    before = (unbroken / "config.json").read_bytes()
    with pytest.raises(InputError, match=r"model\.dit\.width=32, not 64; choose another"):
        run(home, "unbroken", model__dit__width=64)
    assert (unbroken / "config.json").read_bytes() == before


def test_a_failed_start_leaves_nothing(home):
    with pytest.raises(InputError, match="no view 'top'"):
        run(home, "nothing", data__view="top")
    with pytest.raises(InputError, match="batch=9: there are 6 items"):
        run(home, "nothing", batch=9)
    assert not (home / "nothing").exists()


def test_a_loss_that_is_no_number(home, monkeypatch):
    """It ends the run by name; the state without that step is saved, and goes on."""
    sound, count = feed.Feed.__next__, itertools.count(1)

    def poisoned(data):
        batch, ids = sound(data)
        scale = batch["scale"] * (np.nan if next(count) == 3 else 1)
        return batch | {"scale": scale}, ids

    monkeypatch.setattr(feed.Feed, "__next__", poisoned)
    said = r"^step 3: loss is nan, .*; clips noise/\d/front, noise.* saved as step 4: the"
    with pytest.raises(InputError, match=said):
        run(home, "nan", steps=6, checkpoint_every=100)
    lines = metrics_of(home / "nan")
    assert [x["step"] for x in lines if x["loss"] is None] == [3] and len(lines) == 4
    run(home, "nan", steps=6)
    assert metrics_of(home / "nan")[-1]["step"] == 6
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state_of(home / "nan")[1]))


def test_sigterm_saves_and_leaves(home):
    """The whole command."""
    workdir = home / "stopped"
    command = [sys.executable, "-m", "w4d_jax.train", f"--config={home / 'config.py'}"]
    command += [f"--workdir={workdir}", "--config.steps", "1000000"]
    command += ["--config.checkpoint_every=1000000", "--config.sample_every=1000000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=REPO, **pipes) as process:
        metrics = workdir / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "the same command goes on from there" in out
    bar = [line for line in errors.replace("\r", "\n").split("\n") if line.strip()]
    assert all("/1000000 [" in line for line in bar), errors
    step = metrics_of(workdir)[-1]["step"]
    assert [p.name for p in (workdir / "checkpoints").iterdir()] == [str(step)]
    assert read_config(workdir).steps == 1_000_000


# Numbers -----------------------------------------------------------------------------


def test_update_against_numpy():
    """Ten steps of clipping, AdamW, warm-up, cosine and average, written out."""
    config = OptimizerConfig(
        lr=0.05, warmup=3, decay="cosine", weight_decay=0.1, clip=1.0, ema=0.9
    )
    rng = np.random.default_rng(0)
    target = {"w": rng.normal(size=(3, 4)), "b": 5 * rng.normal(size=4)}
    start = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}

    def loss(params, frozen, batch, key):
        gaps = jax.tree.map(lambda p, t: jnp.sum((p - t) ** 2), params, frozen)
        return jnp.square(batch) * (gaps["w"] + gaps["b"]), {}

    def f32(tree):
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)

    tx = optimizer(config, steps=10)
    update = jax.jit(make_update(loss, tx, config.ema))
    state = init_state(f32(start), tx)

    p = {k: v.copy() for k, v in start.items()}
    ema = {k: v.copy() for k, v in start.items()}
    m, v = ({k: np.zeros_like(x) for k, x in p.items()} for _ in range(2))
    for i in range(10):
        scale = 0.1 + 0.1 * i
        state, metrics = update(state, f32(target), jnp.float32(scale), jax.random.key(0))
        g = {k: 2 * scale**2 * (p[k] - target[k]) for k in p}
        norm = np.sqrt(sum((x**2).sum() for x in g.values()))
        np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
        lr = 0.05 * (i / 3 if i < 3 else (1 + np.cos(np.pi * (i - 3) / 7)) / 2)
        decay = min(0.9, (1 + i) / (10 + i))
        for k in p:
            g[k] *= min(1, 1 / norm)
            m[k] = 0.9 * m[k] + 0.1 * g[k]
            v[k] = 0.95 * v[k] + 0.05 * g[k] ** 2
            step = (m[k] / (1 - 0.9 ** (i + 1))) / (
                np.sqrt(v[k] / (1 - 0.95 ** (i + 1))) + 1e-8
            )
            p[k] = p[k] - lr * (step + 0.1 * p[k])
            ema[k] = decay * ema[k] + (1 - decay) * p[k]
            np.testing.assert_allclose(state.params[k], p[k], atol=1e-6)
            np.testing.assert_allclose(state.ema[k], ema[k], atol=1e-6)
    assert int(state.step) == 10
    assert float(schedule(config, config.lr, 10)(10)) == pytest.approx(0, abs=1e-9)


EIGHT = """
import sys
import jax, numpy as np
import runs
from w4d_jax.data.pipeline import batches
from w4d_jax.data.store import StoreSource
from w4d_jax.train.config import load_config
from w4d_jax.train import shard
from w4d_jax.train.task import build

config = load_config(sys.argv[1])
config.model.dit.update(ffn=512)  # large enough for fsdp to cut
task = build(config)
source = StoreSource(config.data.store["train"])
data = batches(source, batch=8, view="front", repeat=False, **runs.SIZE)
batch = next(iter(data))
batch.pop("id")
batch = {k: np.concatenate([v, v])[:8] for k, v in batch.items()}
# Not task.init: heads that start at zero hide what lies behind them.
rng = np.random.default_rng(0)
shapes, frozen = jax.eval_shape(task.init, jax.random.key(0))  # frozen has no leaf
params = jax.tree.map(lambda x: np.float32(0.1 * rng.normal(size=x.shape)), shapes)
gradient = jax.jit(jax.value_and_grad(lambda *a: task.loss(*a)[0]))

def graded(sizes, devices):
    mesh = shard.make_mesh(sizes, devices)
    placed = jax.device_put(params, shard.shardings(mesh, params))
    spread = jax.device_put(batch, shard.batch_sharding(mesh, 8))
    cut = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(placed))
    with jax.set_mesh(mesh):
        return cut, jax.device_get(gradient(placed, frozen, spread, jax.random.key(2)))

_, (loss, grads) = graded({}, jax.devices()[:1])
cut, (loss8, grads8) = graded({"fsdp": 2, "seq": 2, "tensor": 2}, jax.devices())
assert len(jax.devices()) == 8 and cut >= 2, cut
np.testing.assert_allclose(loss8, loss, rtol=1e-5)
norm = max(np.abs(g).max() for g in jax.tree.leaves(grads))
for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(grads8)):
    np.testing.assert_allclose(b, a, atol=1e-5 * max(1, norm))
"""


def test_eight_devices_give_what_one_gives(home):
    done = subprocess.run(
        [sys.executable, "-c", EIGHT, str(home / "config.py")],
        env=os.environ | devices(8) | {"PYTHONPATH": f"{REPO}:{REPO / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def alone(home):
    """Two steps and a sample of one process, some of whose matrices a mesh would cut."""
    return run(home, "alone", **SHORT)


SHORT = {"steps": 2, "sample_every": 2, "model__dit__ffn": 1024}


@pytest.mark.parametrize("each, cut", [(2, {"fsdp": 2, "seq": 2}), (1, {"seq": 2})])
def test_two_processes_share_the_network(home, alone, each, cut):
    """Kinema4D over processes of `each` devices: examples and parameters cut between them
    and tokens within them, or tokens between them."""
    workdir, changes = home / f"two{each}", SHORT | {"mesh__data": 1}
    changes |= {f"mesh__{axis}": size for axis, size in cut.items()}
    command = [sys.executable, "-m", "w4d_jax.train", f"--config={home / 'config.py'}"]
    command += [f"--workdir={workdir}"]
    command += [f"--config.{key.replace('__', '.')}={n}" for key, n in changes.items()]
    told = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    logs = [home / f"two{each}.{i}.log" for i in range(2)]
    runs = []
    for i, log in enumerate(logs):
        env = os.environ | devices(each) | told | {"JAX_PROCESS_ID": str(i)}
        with log.open("w") as out:
            runs.append(
                subprocess.Popen(command, cwd=REPO, env=env, stdout=out, stderr=out)
            )
    try:
        assert [run.wait(300) for run in runs] == [0, 0], [log.read_text() for log in logs]
    finally:
        for run in runs:
            run.kill()
    for ours, whole in zip(kills.metrics(workdir), kills.metrics(alone), strict=True):
        assert ours == pytest.approx(whole, rel=1e-5)
