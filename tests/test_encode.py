"""Encoded clips: training on them is training on the clips; hosts, resuming, damage."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import REPO, write_config, write_noise

from w4d_jax.data.encoded import Encoded, EncodedSource, pack, unpack
from w4d_jax.data.store import Records
from w4d_jax.train import kinema4d
from w4d_jax.train.config import load_config
from w4d_jax.train.encode import encode, settings
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
        config.condition.update(fill="grey", geometry="ramp")
        config.flow.prediction = "velocity"
    return config


def get_config(preset):
    return {"exact": exact, "learned": learned}[preset]()
"""


def tool():
    spec = importlib.util.spec_from_file_location("encode", REPO / "tools/encode.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def home(tmp_path_factory, light):
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


@pytest.fixture(scope="module", params=["exact", "learned"])
def both(request, home):
    """The task on clips and on encoded ones, which two hosts made."""
    preset, out = request.param, home / request.param
    for host in (0, 1):
        words = ("--host", host, "--hosts", 2, "--batch", 2, "--dtype", "float32")
        config = f"{home / 'c.py'}:{preset}"
        assert tool().main(["--config", config, "--out", str(out), *map(str, words)]) == 0
    return [build(config_of(home, preset, folder)) for folder in ("", out)]


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


def test_the_loss_is_that_of_the_clips(both):
    task, encoded = both
    ids = ["noise/3/front", "noise/2/front"]  # of different hosts
    batches = [batch_of(t.items("train"), ids) for t in both]
    assert not set(batches[0]) & set(batches[1])
    params, frozen = drawn(task)
    losses = [
        jax.jit(t.loss)(params, frozen, batch, KEY)
        for t, batch in zip(both, batches, strict=True)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *losses)

    def convolutions(batch):
        program = jax.make_jaxpr(task.loss)(params, frozen, batch, KEY)
        return str(program).count("conv_general_dilated")

    learned = frozen["image"] is not None
    assert (convolutions(batches[0]) > 0) == learned
    assert convolutions(batches[1]) == 0
    # What the network does not train on, it still looks at as clips.
    assert "rgb" in encoded.items("test")[0]


def test_half_precision_costs_little(home):
    config = config_of(home, "exact")
    out = home / "half"
    encode(config, "train", out)
    items = EncodedSource(out, settings(config))
    assert items[0]["rgb_latent"].dtype == np.float16 and len(items) == CLIPS
    task, ids = build(config), ["noise/0/front", "noise/1/front"]
    params, frozen = drawn(task)
    loss = jax.jit(lambda batch: task.loss(params, frozen, batch, KEY)[0])
    exact, half = loss(batch_of(task.items("train"), ids)), loss(batch_of(items, ids))
    assert 0 < abs(half - exact) < 1e-3 * exact


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
    for i in range(CLIPS):
        jax.tree.map(np.testing.assert_array_equal, unpack(whole[i]), again[i])

    config.condition.fill = "held"
    with pytest.raises(InputError, match=r"fill.*choose another --out"):
        encode(config, "train", out)
    with pytest.raises(InputError, match="encoded with fill drawn, the config has held"):
        EncodedSource(out, settings(config))


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
    with pytest.raises(InputError, match="a store of clips, not of encoded ones"):
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


def test_four_devices_and_the_command(home, light):
    """A batch over all devices, the last one short; what is printed."""
    command = [
        sys.executable,
        REPO / "tools/encode.py",
        "--config",
        f"{home / 'c.py'}:exact",
    ]
    flags = "--xla_force_host_platform_device_count=4"
    run = subprocess.run(
        [*command, "--out", home / "devices", "--dtype", "float32"],
        env=os.environ | light | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert re.search(
        rf"{CLIPS} clips, [\d,]+ bytes a clip on disk; the reference keeps", run.stdout
    )
    assert f"{CLIPS}/{CLIPS}" in run.stderr
    one = encode(config_of(home, "exact"), "train", home / "one", dtype="float32")
    many = Records(home / "devices/part-00000-of-00001", unpack)
    assert json.loads(many.label)["settings"] == json.loads(one.label)["settings"]
    for i in range(CLIPS):
        alone, together = unpack(one[i]), many[i]
        assert alone.pop("id") == together.pop("id")
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), alone, together
        )


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
    assert tool().main(call) == 2
    error = capsys.readouterr().err
    assert re.search(f"^error: .*{message}", error) and error.count("\n") == 1
    assert not (home / "bad").exists()


def test_bytes_of_a_clip_at_full_size():
    """In float16 and bits, before compression, beside the reference's 26.6 MB."""
    config = load_config(f"{REPO / 'configs/kinema4d.py'}:14b")
    assert tool().reference_bytes(49, 480, 720) == 26_577_920
    task = kinema4d.build(config)
    T, H, W = 49, 480, 720
    shapes = {
        **dict.fromkeys(("rgb", "robot_rgb"), ((T, H, W, 3), "uint8")),
        **dict.fromkeys(("depth", "robot_depth"), ((T, H, W), "float32")),
        "K": ((3, 3), "float32"),
        "cam_from_world": ((T, 4, 4), "float32"),
        "center": ((3,), "float32"),
        "scale": ((), "float32"),
    }
    clip = {k: jax.ShapeDtypeStruct((1, *s), dtype) for k, (s, dtype) in shapes.items()}

    def made(key, clip):
        return task.bound(task.draw_coders(key)).encodings(clip)

    latents = jax.eval_shape(made, KEY, clip)
    cells = latents.pop("robot_cells")
    assert cells.size / 8 == 8775
    assert sum(2 * x.size for x in latents.values()) + 8775 == 11_898_695
