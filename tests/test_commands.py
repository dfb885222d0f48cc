"""Whole commands as a user types them, from nothing to a judged 4D video; and bad input."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from runs import REPO, tool, write_config

from w4d_jax.data.result import read_result
from w4d_jax.data.sim.world import ARM
from w4d_jax.nets.codec import CosineCodec
from w4d_jax.sample.preview import image
from w4d_jax.train import __main__ as train

FRAMES, SIZE = 5, 16


TOOLS = {name: tool(name) for name in ("evaluate", "prepare", "render_robot", "simulate")}


def call(name, *arguments) -> int:
    main = train.main if name == "train" else TOOLS[name].main
    return main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder in which everything has been run once: store, run, clip, robot.npz, out."""
    home = tmp_path_factory.mktemp("commands")
    store = home / "store"
    size = ("--frames", FRAMES, "--height", SIZE, "--width", SIZE)
    assert call("prepare", "sim", "--count", 2, *size, "--out", store) == 0
    take = ("--store", store, "--index", 1, "--view", "front")
    assert call("prepare", "clip", *take, "--out", home / "clip") == 0
    config = write_config(home / "config.py", store, store)
    run = ("--config", config, "--workdir", home / "run", "--config.steps=2")
    assert call("train", *run) == 0
    assert call("render_robot", *options(home, "render_robot")) == 0
    assert call("simulate", *options(home, "simulate", latents="float32")) == 0
    return home


def options(home, name, **changes):
    """The arguments of a good call; changes: option=value."""
    clip = home / "clip"
    good = {
        "render_robot": {
            "joints": clip / "q.npz",
            "out": home / "robot.npz",
        },
        "simulate": {
            "checkpoint": home / "run",
            "image": clip / "first.png",
            "actions": clip / "actions.npz",
            "ee-link": "tool",
            "out": home / "out",
        },
    }[name] | {"robot": ARM, "camera": clip / "camera.json"}
    pairs = (good | {k.replace("_", "-"): v for k, v in changes.items()}).items()
    many = ((option, v if isinstance(v, list) else [v]) for option, v in pairs)
    return [word for option, values in many for word in (f"--{option}", *values)]


def test_clip(home):
    clip = home / "clip"
    assert {p.name for p in clip.iterdir()} == {
        *("truth", "camera.json", "first.png", "q.npz", "actions.npz")
    }
    with Image.open(clip / "first.png") as image:
        assert image.size == (SIZE, SIZE)
    truth = read_result(clip / "truth")
    assert truth.rgb.shape == (FRAMES, SIZE, SIZE, 3)


def test_render_robot_is_the_truth(home):
    """What the tool draws from the joints is what the simulator saw of the robot."""
    truth = read_result(home / "clip/truth")
    with np.load(home / "robot.npz") as robot:
        assert set(robot.files) == {"pointmap", "mask", "depth", "link"}
        assert robot["pointmap"].shape == (FRAMES, SIZE, SIZE, 3)
        mask, link = robot["mask"], robot["link"]
        np.testing.assert_array_equal(robot["depth"] > 0, mask)
    assert (mask != truth.robot_mask).mean() < 0.01
    assert mask.any() and ((link >= 0) == mask).all()


def test_simulate_writes_a_result(home):
    assert {p.name for p in (home / "out").iterdir()} == {
        *("clip.npz", "rgb.mp4", "preview.gif", "latent.npy")
    }
    made = read_result(home / "out")
    truth = read_result(home / "clip/truth")
    assert made.rgb.shape == (FRAMES, SIZE, SIZE, 3)
    assert np.isfinite(made.pointmap).all()
    np.testing.assert_allclose(made.camera.K, truth.camera.K, rtol=1e-5)
    poses = np.broadcast_to(truth.camera.cam_from_world, (FRAMES, 4, 4))
    made_poses = np.broadcast_to(made.camera.cam_from_world, (FRAMES, 4, 4))
    np.testing.assert_allclose(made_poses, poses, atol=1e-5)
    # Actions are commands, the truth was measured: the arm lags a little.
    assert (made.robot_mask[0] != truth.robot_mask[0]).mean() < 0.1
    # The latents are those that the video was decoded from.
    (latent,) = np.load(home / "out/latent.npy")
    assert (latent.dtype, latent.shape) == (np.float32, (2, 4, 8, 192))
    decoded = CosineCodec((4, 4, 4)).decode(np.split(latent, 2, axis=2)[0][None])
    np.testing.assert_array_equal(image(np.clip(decoded, -1, 1))[0], made.rgb)


def test_evaluate(home, capsys, monkeypatch):
    monkeypatch.setattr(TOOLS["evaluate"], "BATCH", 2)
    pair = ("--prediction", home / "out", "--truth", home / "clip/truth")
    robot = ("--robot", home / "robot.npz", "--out", home / "report")
    assert call("evaluate", *pair, *robot, "--no-networks") == 0
    table = capsys.readouterr().out
    for words in ("### Whole frame", "### Robot masked out", "PSNR, dB", "Chamfer L1, m"):
        assert words in table
    assert (home / "report.md").read_text() == table
    summary = json.loads((home / "report.json").read_text())["summary"]
    assert summary["prediction"]["whole"]["psnr"]["count"] == 1

    run = ("--checkpoint", home / "run", "--clips", 2)
    assert call("evaluate", *run, "--no-networks") == 0
    table = capsys.readouterr().out
    assert "| | run |" in table or "| run |" in table
    assert "### Task, all clips" in table


def test_the_truth_is_its_own_best_prediction(home, capsys):
    truth = home / "clip/truth"
    pair = ("--prediction", truth, "--truth", truth, "--out", home / "perfect")
    assert call("evaluate", *pair, "--no-networks") == 0
    whole = json.loads((home / "perfect.json").read_text())["summary"]["prediction"][
        "whole"
    ]
    assert whole["chamfer_l1"]["mean"] == pytest.approx(0, abs=1e-6)
    assert whole["ssim"]["mean"] == pytest.approx(1)


# Bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", *TOOLS])
def test_help(name, capsys):
    with pytest.raises(SystemExit) as left:
        call(name, "--help")
    assert left.value.code == 0
    assert "usage:" in capsys.readouterr().out


def refused(capsys, home, name, *arguments) -> str:
    """The one line on stderr of a call that fails and leaves nothing."""
    before = sorted(home.rglob("*"))
    capsys.readouterr()
    assert call(name, *arguments) == 2
    out, line = capsys.readouterr()
    assert out == "" and line.count("\n") == 1, line
    assert sorted(home.rglob("*")) == before
    return line


@pytest.fixture(scope="module")
def bad(home):
    """Files that are wrong in one way each."""
    bad = home / "bad"
    bad.mkdir()
    camera = json.loads((home / "clip/camera.json").read_text())
    pose = np.array(camera["cam_from_world"]).reshape(-1, 4, 4)[0]
    away = (np.diag([-1.0, 1.0, -1.0, 1.0]) @ pose).tolist()
    (bad / "behind.json").write_text(json.dumps(camera | {"cam_from_world": away}))
    (bad / "text.json").write_text("camera")
    whole = (home / "clip/q.npz").read_bytes()
    (bad / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (bad / "empty.npz").write_bytes(b"")
    with np.load(home / "clip/q.npz") as file:
        q, names = file["q"], file["joint_names"]
    np.savez(bad / "short.npz", q=q[:1], joint_names=names)
    np.savez(bad / "nan.npz", q=q * np.nan, joint_names=names)
    Image.new("RGB", (SIZE, SIZE + 1)).save(bad / "tall.png")
    (bad / "text.png").write_text("image")
    (bad / "truth").mkdir()
    data = (home / "out/clip.npz").read_bytes()
    (bad / "truth/clip.npz").write_bytes(data[: len(data) // 2])
    return bad


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("simulate", {"robot": "none.urdf"}, "none.urdf"),
        ("simulate", {"camera": "none.json"}, "camera none.json: cannot read it"),
        ("simulate", {"camera": "bad/text.json"}, "not JSON"),
        (
            "simulate",
            {"camera": "bad/behind.json"},
            "is behind it by .*; check cam_from_world",
        ),
        ("simulate", {"image": "none.png"}, "image none.png: cannot read it"),
        ("simulate", {"image": "bad/text.png"}, "image .*text.png: cannot read it"),
        ("simulate", {"image": "bad/tall.png"}, "image of 17x16: the camera has 16x16"),
        ("simulate", {"actions": "bad/short.npz"}, "1 frame, need 2 or more"),
        ("simulate", {"actions": "bad/cut.npz"}, "cut.npz: not an .npz, or cut short"),
        ("simulate", {"actions": "bad/nan.npz"}, "nan.npz: .*NaN"),
        ("simulate", {"ee_link": "paw"}, "paw"),
        ("simulate", {"checkpoint": "none"}, "workdir none: no readable config.json"),
        ("simulate", {"out": "out"}, "exists already"),
        ("simulate", {"out": ["new", "newer"]}, "1 images, 1 actions, 2 outs"),
        ("simulate", {"out": "/proc/none/out"}, "cannot make it"),
        ("render_robot", {"joints": "bad/empty.npz"}, "empty.npz: not an .npz, or cut"),
        ("render_robot", {"joints": "none.npz"}, "none.npz: cannot read it"),
        (
            "render_robot",
            {"camera": "bad/behind.json"},
            "no pixel of the robot in any of 5",
        ),
        ("render_robot", {"out": "none/robot.npz"}, "cannot write it"),
    ],
)
def test_bad_input(home, bad, capsys, monkeypatch, name, change, said):
    monkeypatch.chdir(home)
    if "out" not in change:
        change = change | {"out": home / "fresh"}
    line = refused(capsys, home, name, *options(home, name, **change))
    assert re.search(said, line), line


def test_bad_input_of_the_others(home, bad, capsys, monkeypatch):
    monkeypatch.chdir(home)
    config = ("--config", home / "config.py")

    def said(name, *arguments):
        return refused(capsys, home, name, *arguments)

    assert "no such file" in said("train", "--config", "none.py")
    line = said("train", *config, "--config.nothing=1")
    assert "no such key 'nothing'" in line
    assert "'huge': need one of tiny" in said(
        "train", "--config", f"{REPO}/configs/kinema4d.py:huge"
    )
    assert "cannot write" in said("train", *config, "--workdir", "/proc/none")
    assert "cannot write" in said("train", *config, "--workdir", home / "config.py")
    assert "frames=6: need 4k+1" in said("train", *config, "--config.data.frames=6")
    assert "exists already" in said("prepare", "sim", "--count", 1, "--out", "store")
    take = ("--store", "store", "--view", "front", "--out", "fresh")
    assert "clips 0..1" in said("prepare", "clip", "--index", 2, *take)
    truth = ("--truth", "clip/truth", "--no-networks")
    assert "cannot read" in said("evaluate", "--prediction", "none", *truth)
    assert "bad/truth" in said("evaluate", "--prediction", "bad/truth", *truth)
    assert "no readable config.json" in said("evaluate", "--checkpoint", "none")
    good = ("--prediction", "out", *truth)
    assert "none: cannot write" in said("evaluate", *good, "--out", "none/report")
    new = ("prepare", "sim", "--count", 1, "--out", "/proc/none/store")
    assert "cannot make it" in said(*new)


def test_a_real_process_ends_as_cleanly(home, bad):
    """No traceback and no log lines around the one that matters."""
    arguments = options(home, "simulate", image=bad / "text.png", out=home / "fresh")
    done = subprocess.run(
        [sys.executable, REPO / "tools/simulate.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": ""},
        cwd=home,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: image ") and done.stderr.count("\n") == 1
    assert not (home / "fresh").exists()
