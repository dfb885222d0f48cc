"""Encoded clips: training on them is training on the clips; hosts, resuming, damage."""

import math
import os
import re
import subprocess
import sys
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import REPO, tool, write_config, write_noise

from w4d_jax.data.encoded import Encoded, EncodedSource, pack, unpack
from w4d_jax.nets.checkpoint import Checkpoint, write_checkpoint
from w4d_jax.nets.kinds import export_kind
from w4d_jax.nets.lazy import digest, held
from w4d_jax.nets.weights import flat
from w4d_jax.train import kinema4d
from w4d_jax.train.codec import build_codec
from w4d_jax.train.config import load_config
from w4d_jax.train.encode import encode, settings, weights
from w4d_jax.train.task import build
from w4d_jax.types import InputError

KEY = jax.random.key(0)
CLIPS = 5
# Learned coders, and the reference's condition. runs.py has the exact codec and ours.
LEARNED = """
exact = get_config


def learned():
    config = exact()
    with config.unlocked():
        config.codec = {"wan": {"weights": "", "chunk": None, "base": 2,
                                "multipliers": (1, 2), "blocks": 1, "temporal": (True,)}}
        config.image = {"clip": {"weights": "", "width": 12, "heads": 2, "layers": 2,
                                 "ffn": 16, "patch": 4, "side": 8}}
        config.model.dit.image_dim = 12
        config.model.update(variant="pm", crossed=False)
        config.condition.update(fill="grey", geometry="ramp", outcomes=False)
        config.flow.prediction = "velocity"
    return config


def get_config(preset):
    return {"exact": exact, "learned": learned}[preset]()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("encode")
    clips = write_noise(home / "clips", range(CLIPS))
    file = write_config(home / "c.py", clips, clips)
    file.write_text(file.read_text() + LEARNED)
    return home


def config_of(home, preset, encoded=""):
    config = load_config(f"{home / 'c.py'}:{preset}")
    with config.unlocked():
        config.data.encoded = {"train": str(encoded)}
    return config


@pytest.fixture(scope="module")
def two_hosts(home):
    """A folder that two hosts of four devices wrote, and what they said."""
    words = ["--config", f"{home / 'c.py'}:exact", "--dtype", "float32", "--hosts", "2"]
    calls = [[*words, "--out", str(home / "two"), "--host", host] for host in "01"]
    program = f"import encode; [encode.main(words) for words in {calls}]"
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    said = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | flags | {"PYTHONPATH": f"{REPO}:{REPO / 'tools'}"},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    return home / "two", said


@pytest.fixture(scope="module")
def one_host(home):
    """The same of learned coders, by one."""
    encode(config_of(home, "learned"), "train", home / "one", batch=2, dtype="float32")
    return home / "one"


def batch_of(items, ids):
    """The items of these ids, in their order."""
    found = {item["id"]: item for item in (items[i] for i in range(len(items)))}
    names = [name for name in found[ids[0]] if name != "id"]
    return {name: np.stack([found[id][name] for id in ids]) for name in names}


def drawn(task):
    """Parameters without a zero among them; the coders as the config's seed draws them."""
    rng = np.random.default_rng(0)
    shapes, _ = jax.eval_shape(task.init, KEY)
    params = jax.tree.map(lambda x: jnp.float32(0.1 * rng.normal(size=x.shape)), shapes)
    return params, jax.jit(lambda key: task.init(key)[1])(KEY)


def compared(home, preset, folder):
    """Both tasks, both batches, (params, frozen), and the losses, which must be equal."""
    tasks = [build(config_of(home, preset, folder)) for folder in ("", folder)]
    ids = ["noise/3/front", "noise/2/front"]
    batches = [batch_of(task.items("train"), ids) for task in tasks]
    assert not set(batches[0]) & set(batches[1])
    leaves = drawn(tasks[0])
    loss = jax.jit(tasks[0].loss)
    results = [loss(*leaves, batch, KEY) for batch in batches]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *results)
    return tasks, batches, leaves, loss, results[0][0]


def test_the_loss_is_that_of_the_clips(home, two_hosts):
    out, said = two_hosts
    tasks, *_ = compared(home, "exact", out)
    # What the network does not train on, it still looks at as clips.
    assert "rgb" in tasks[1].items("test")[0]
    for count in (3, 2):
        assert f": {count} clips, " in said.stdout and f"{count}/{count}" in said.stderr
    assert re.search(
        r"[\d,]+ bytes a clip on disk; the reference keeps [\d,]+", said.stdout
    )


def test_the_loss_of_encoded_clips_runs_no_coder(home, one_host):
    tasks, batches, leaves, loss, exact = compared(home, "learned", one_host)
    programs = [jax.make_jaxpr(tasks[0].loss)(*leaves, batch, KEY) for batch in batches]
    count = [str(program).count("conv_general_dilated") for program in programs]
    assert count[0] > 0 and count[1] == 0
    assert batches[1]["image"].shape == (2, 5, 12)
    # Stored in float16, as they are by default.
    half = {
        name: x if x.dtype == bool else x.astype(np.float16).astype(x.dtype)
        for name, x in batches[1].items()
    }
    assert 0 < abs(loss(*leaves, half, KEY)[0] - exact) < 1e-4 * exact


def stop_after(count):
    def progress(todo):
        yield from islice(todo, count)
        raise KeyboardInterrupt

    return progress


def test_a_stopped_host_goes_on_and_a_finished_one_rests(home, tmp_path):
    config, out = config_of(home, "exact"), tmp_path / "out"
    done = []

    def counted(todo):
        for i in todo:
            done.append(i)
            yield i

    with pytest.raises(KeyboardInterrupt):
        encode(config, "train", out, shard_clips=2, progress=stop_after(3))
    with pytest.raises(InputError, match=r"holds no encoded clips; .* tools/encode\.py"):
        EncodedSource(out, settings(config))
    for _ in range(2):
        encode(config, "train", out, shard_clips=2, progress=counted)
        assert done == [2, 3, 4]  # the first file was whole, and nothing is done twice
    whole = encode(config, "train", tmp_path / "whole")
    again = EncodedSource(out, settings(config))
    assert len(again) == CLIPS and again[0]["rgb_latent"].dtype == np.float16
    for i in range(CLIPS):
        jax.tree.map(np.testing.assert_array_equal, unpack(whole[i]), again[i])

    config.condition.fill = "held"
    with pytest.raises(InputError, match=r"fill.*choose another --out"):
        encode(config, "train", out)
    with pytest.raises(InputError, match="made with fill drawn, the config has held"):
        EncodedSource(out, settings(config))


def test_clips_of_other_weights_are_refused(home, one_host, tmp_path):
    """What drew them or a digest of their values, in whatever files they are."""
    config = config_of(home, "learned", one_host)
    assert len(build(config).items("train")) == CLIPS
    coder, _ = build_codec(config.codec)
    params = jax.jit(coder.init)(jax.random.key(config.seed)).params
    leaves = {path: held(np.asarray(x)) for path, x in flat(params).items()}
    made = Checkpoint("vae", coder.config, leaves)
    for folder, write in (("ours", write_checkpoint), ("theirs", export_vae)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, made)
        config.codec.wan.weights = str(tmp_path / folder)
        assert weights(config)["codec weights"] == digest(leaves)
    said = rf"codec weights drawn by seed 0, the config has {digest(leaves)}; make it again"
    with pytest.raises(InputError, match=said):
        build(config).items("train")


def export_vae(folder, checkpoint):
    export_kind("vae", checkpoint, folder)


def test_parts_are_asked_for(home, tmp_path):
    config, out = config_of(home, "exact"), tmp_path / "out"
    encode(config, "train", out, host=1, hosts=3)
    with pytest.raises(
        InputError, match=r"has 1 parts, of 3; missing: part-00000-of-00003"
    ):
        EncodedSource(out, settings(config))
    with pytest.raises(InputError, match="host 3 of 3"):
        encode(config, "train", out, host=3, hosts=3)
    with pytest.raises(InputError, match="host 5 of 6: 5 items, need fewer hosts"):
        encode(config, "train", out, host=5, hosts=6)


def test_a_store_of_clips_is_not_one_of_encoded_clips(home, tmp_path):
    write_noise(tmp_path / "part-00000-of-00001", [0])
    with pytest.raises(InputError, match="a store of clips, not made of them"):
        EncodedSource(tmp_path, {})


def test_records():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(2, 3, 5, 4)).astype(np.float16)
    cells = rng.random((2, 3, 5)) < 0.4
    record = pack(Encoded("a/ü", {"rgb_latent": latent, "robot_cells": cells}))
    item = unpack(record)
    assert item["id"] == "a/ü" and item["robot_cells"].dtype == bool
    np.testing.assert_array_equal(item["robot_cells"], cells)
    np.testing.assert_array_equal(item["rgb_latent"], latent)
    at = record.index(latent.tobytes())
    damaged = record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]
    for bad in (damaged, record[:-30], b"", b"w4d clip"):
        with pytest.raises(InputError, match="no encoded clip, or damaged") as error:
            unpack(bad)
        assert "\n" not in str(error.value)
    latent[0, 0, 0, 0] = np.inf
    with pytest.raises(InputError, match="clip a: rgb_latent holds NaN or infinity"):
        pack(Encoded("a", {"rgb_latent": latent, "robot_cells": cells}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batch", "0"), "batch=0: need a multiple of 1"),
        (("--host", "2", "--hosts", "2"), "host 2 of 2"),
        (("--config.codec.jpeg=1",), "no such key 'jpeg'"),
        (("--config.data.frames=6",), r"frames=6: need 4k\+1"),
    ],
)
def test_bad_words_are_one_line(home, capsys, words, message):
    call = ["--config", f"{home / 'c.py'}:exact", "--out", str(home / "bad"), *words]
    assert tool("encode").main(call) == 2
    error = capsys.readouterr().err
    assert re.search(f"^error: .*{message}", error) and error.count("\n") == 1
    assert not (home / "bad").exists()


def test_bytes_of_a_clip_at_full_size():
    """In float16 and bits, before compression, beside the reference's."""
    joint = kinema4d.build(load_config(f"{REPO / 'configs/kinema4d.py'}:14b")).joint
    cells = math.prod(joint.grid)
    latents = 5 * cells * joint.codec.channels  # two halves, the robot's, two of condition
    image = joint.image.config.tokens * joint.image.config.width
    assert cells / 8 == 8775 and 2 * (latents + image) + cells // 8 == 11_898_695
    assert tool("encode").reference_bytes(49, 480, 720) == 26_577_920
