"""Pairs that a track head finds once: what is written, what training reads of it."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from clips import make_clip
from golden import jit
from runs import REPO, tool
from test_vggt import SMALL, draw

from w4d_jax.data.store import write
from w4d_jax.data.tracks import told
from w4d_jax.kin.match import Pairs, pairs_from_tracks, query_grid
from w4d_jax.nets.checkpoint import Checkpoint, write_checkpoint
from w4d_jax.nets.lazy import held
from w4d_jax.nets.vggt import VGGT
from w4d_jax.nets.weights import flat
from w4d_jax.train import geometry
from w4d_jax.train.config import load_config, override
from w4d_jax.train.task import build
from w4d_jax.types import InputError

FILE = f"{REPO}/configs/wristworld_geometry.py:full"
SIDE, SIZE = 3, 28
MOMENTS = 3  # of one clip
TRACK = tool("track")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A store of one clip, and a model that is sure of some of its tracks."""
    folder = tmp_path_factory.mktemp("tracks")
    write(folder / "store", [make_clip(0, frames=MOMENTS)], label="noise")
    images, queries = np.zeros((1, 2, SIZE, SIZE, 3)), np.zeros((1, 2, 2))
    shapes = jax.eval_shape(VGGT(SMALL).init, jax.random.key(0), images, queries)
    params = jax.tree.map(np.float32, draw(shapes["params"]))
    params["track"]["tracker"]["sure"]["bias"] -= 1.0
    (folder / "model").mkdir()
    leaves = {path: held(x) for path, x in flat(params).items()}
    write_checkpoint(folder / "model", Checkpoint("vggt", SMALL, leaves))
    return SimpleNamespace(path=folder, params=params)


def changes(home, **more) -> dict[str, str]:
    data = {"frames": MOMENTS, "height": SIZE, "width": SIZE, "view": ("front", "wrist")}
    data |= {"store.train": home.path / "store"} | more
    return {f"data.{key}": str(value) for key, value in data.items()}


def words(home, out, *more, **data):
    given = ["--config", FILE, "--model", str(home.path / "model"), "--out", str(out)]
    given += ["--side", str(SIDE), "--margin", "5", *more]
    return given + [f"--config.{k}={v}" for k, v in changes(home, **data).items()]


def config_of(home, tracks, **more):
    config = load_config(FILE)
    for key, value in changes(home, **{"tracks.train": tracks}, **more).items():
        override(config, key, value)
    return config


@pytest.fixture(scope="module")
def made(home):
    """By two hosts, one of which fills its last batch up."""
    out = home.path / "made"
    for host in ("0", "1"):
        share = "--host", host, "--hosts", "2", "--batch", "2"
        assert TRACK.main(words(home, out, *share)) == 0
    return out


def test_training_reads_what_the_track_head_finds(home, made):
    config = config_of(home, made)
    items = build(config).items("train")
    moments = [items[i] for i in range(len(items))]
    alone = build(config_of(home, "")).items("train")
    assert len(moments) == len(alone) == MOMENTS
    queries = np.tile(query_grid(SIZE, SIZE, SIDE, 5), (MOMENTS, 1, 1))
    views = [np.stack([m["wrist_rgb"], *m["rgb"]]) for m in moments]
    run, images = jit(VGGT(SMALL).apply), np.stack(views).astype(np.float32) / 255
    said = run({"params": home.params}, images, queries).tracks
    wanted = pairs_from_tracks(said.xy[-1], said.visible, said.sure, 0.2)
    assert 0 < np.mean(wanted.confidence > 0) < 1
    batch = {name: np.stack([m[name] for m in moments]) for name in moments[0]}
    found = told(batch)
    assert found
    for name, ours, theirs in zip(Pairs._fields, found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4, err_msg=name)
    for i, moment in enumerate(moments):
        for name, x in alone[i].items():
            np.testing.assert_array_equal(moment[name], x)
    # The loss projects these, and draws none.
    task, seen = geometry.build(config), geometry.seen(batch, "")
    pairs = task.matched(None, batch, seen, geometry.seen(batch, "wrist_"))
    assert all(x is batch[f"pair_{n}"] for n, x in zip(Pairs._fields, pairs, strict=True))


def test_what_is_complete_is_left_alone(home, made, capsys):
    file = made / "part-00000-of-00002" / "index.json"
    before = file.stat().st_mtime_ns
    share = "--host", "0", "--hosts", "2"
    assert TRACK.main(words(home, made, *share)) == 0
    assert file.stat().st_mtime_ns == before
    assert "2 moments" in capsys.readouterr().out
    assert TRACK.main(words(home, made, *share, "--margin", "6")) == 2
    assert "choose another --out" in capsys.readouterr().err


def test_tracks_of_other_data_are_refused(home, made, capsys):
    with pytest.raises(InputError, match="made with height 28, the config has 42"):
        build(config_of(home, made, height=42)).items("train")
    with pytest.raises(
        InputError, match=r"holds no tracks; make them with tools/track\.py"
    ):
        build(config_of(home, home.path)).items("train")
    for name, clips in (("two", (0, 1)), ("other", (1,))):
        source = [make_clip(seed, frames=MOMENTS) for seed in clips]
        write(home.path / name, source, label=name)
    store = {"store.train": home.path / "two"}
    with pytest.raises(InputError, match="tracks of 3 moments, the data has 6"):
        build(config_of(home, made, **store)).items("train")
    store = {"store.train": home.path / "other"}
    with pytest.raises(InputError, match="moment 0 is of noise/0/0, the data's of noise/1"):
        build(config_of(home, made, **store)).items("train")[0]
    share = "--host", "3", "--hosts", "3"
    assert TRACK.main(words(home, home.path / "none", *share)) == 2
    assert "host 3 of 3" in capsys.readouterr().err
