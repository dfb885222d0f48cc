"""WristWorld's video model: its network, its data, what it is told, and long videos."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clips import make_clip
from runs import REPO, metrics_of

from w4d_jax.data.pipeline import assemble
from w4d_jax.data.store import StoreSource, write
from w4d_jax.data.wrist import Mapped, WristSamples
from w4d_jax.nets import dit, weights
from w4d_jax.nets.condition import unit
from w4d_jax.nets.wristworld import (
    WristWorld,
    WristWorldConfig,
    coverage,
    widened,
    wristworld_1b,
)
from w4d_jax.nets.wristworld_names import wristworld
from w4d_jax.sample.windows import windows
from w4d_jax.sample.wrist import wrist_video
from w4d_jax.train import loop
from w4d_jax.train.config import load_config
from w4d_jax.train.wristworld import build, load_text
from w4d_jax.types import InputError

KEY = jax.random.key(0)
SMALL = WristWorldConfig(
    dit.DiTConfig(5, 2, width=16, heads=2, layers=1, ffn=16, frequencies=8, text_dim=6),
    feature_dim=7,
    hidden=8,
    views=2,
    frames=5,
)
TEXT, FEATURES = jnp.ones((1, 12, 6)), jnp.zeros((1, 2, 5, 7))


def inputs():
    noisy, condition = jnp.zeros((1, 2, 2, 4, 2)), jnp.zeros((1, 2, 2, 4, 3))
    return noisy, condition, jnp.zeros(1), TEXT, FEATURES


@cache
def small_params():
    return jax.jit(WristWorld(SMALL).init)(KEY, *inputs())["params"]


# ------ the network


def test_size():
    """The paper's model has the published number of parameters, and six views fit."""
    config = WristWorldConfig(**wristworld_1b(), views=6)
    noisy, condition = (jnp.zeros((1, 1, 2, 2, 16)) for _ in range(2))
    text, features = jnp.zeros((1, 512, 4096)), jnp.zeros((1, 6, 81, 1280))
    given = noisy, condition, jnp.zeros(1), text, features
    shapes = jax.eval_shape(WristWorld(config).init, KEY, *given)["params"]
    views = shapes.pop("views")
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 1_419_095_104
    assert views["time"].shape == (200, 1280) and views["view"].shape == (6, 1280)


def test_names_are_total_and_exact_both_ways():
    params = jax.tree.map(np.asarray, small_params())
    file = weights.to_torch(wristworld(SMALL), params)
    assert file["denoising_model.blocks.0.self_attn.norm_q.module.weight"].shape == (16,)
    assert file["denoising_model.patch_embedding.module.weight"].shape == (16, 5, 1, 2, 2)
    assert {"ext_proj.0.weight", "ext_proj.3.bias", "view_embed.weight"} < set(file)
    marked = file | {"sign": np.zeros(1, np.float32)}
    again = weights.from_torch(wristworld(SMALL), marked)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_context():
    """View tokens, view by view, replace the last rows; unseen, the text stays whole."""
    net = WristWorld(SMALL)

    def context(features, seen=None):
        given = {"params": small_params()}
        return net.apply(given, TEXT, features, seen, method="context")

    plain = context(FEATURES)
    np.testing.assert_array_equal(plain[:, :2], TEXT[:, :2])
    one = context(FEATURES.at[0, 1, 3].set(1.0))
    moved = np.flatnonzero(np.abs(one - plain).max((0, 2)))
    assert moved.tolist() == [2 + 5 * 1 + 3]
    np.testing.assert_array_equal(context(FEATURES, jnp.zeros(1)), TEXT)
    with pytest.raises(
        InputError, match="2 views x 5 frames: 10 tokens, the context has 9"
    ):
        net.apply({"params": small_params()}, TEXT[:, :9], FEATURES, method="context")
    with pytest.raises(
        InputError, match="3 views, 5 frames, width 7: the model takes up to 2"
    ):
        context(jnp.zeros((1, 3, 5, 7)))


@pytest.mark.parametrize("views", [0, 7])
def test_number_of_views(views):
    with pytest.raises(InputError, match=f"views={views}: need 1 to 6"):
        dataclasses.replace(SMALL, views=views)


def test_a_widened_patch_embedding_starts_as_it_was():
    kernel = np.random.default_rng(0).normal(size=(1, 2, 2, 3, 4)).astype(np.float32)
    wide = widened(KEY, kernel, 5)
    np.testing.assert_array_equal(wide[..., :3, :], kernel)
    assert wide.shape == (1, 2, 2, 8, 4) and not wide[..., 3:, :].any()
    drawn = widened(KEY, kernel, 500, 0.02)[..., 3:, :]
    np.testing.assert_allclose(drawn.std(), 0.02, rtol=0.05)


def test_coverage():
    valid = np.random.default_rng(0).random((2, 9, 8, 12)) < 0.5
    cells = coverage(valid, (4, 4, 2))
    assert cells.shape == (2, 3, 2, 6, 4)
    np.testing.assert_allclose(cells[1, 0, 1, 2], np.full(4, valid[1, 0, 4:, 4:6].mean()))
    np.testing.assert_allclose(cells[0, 2, 0, 1, 3], valid[0, 8, :4, 2:4].mean())


# ------ data


SIZE = {"frames": 5, "height": 16, "width": 16}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Clips whose front camera and wrist see each other's points."""
    clips = []
    for seed in range(2):
        clip = make_clip(seed, **SIZE)
        wrist = clip.views["wrist"]
        pose = np.tile(np.eye(4, dtype=np.float32), (5, 1, 1))
        pose[:, 0, 3] = 0.1 * np.arange(5)
        camera = dataclasses.replace(wrist.camera, cam_from_world=pose)
        front = clip.views["front"]
        still = dataclasses.replace(
            front.camera, cam_from_world=np.eye(4, dtype=np.float32)
        )
        near = front._replace(camera=still, depth=np.full_like(front.depth, 1.5))
        views = {"front": near, "side": near, "wrist": wrist._replace(camera=camera)}
        clips.append(clip._replace(views=views))
    path = tmp_path_factory.mktemp("wrist") / "store"
    write(path, clips, label="noise")
    return path


def samples(source, anchors=("front", "side"), **size):
    size = SIZE | size
    mapped = Mapped(source, anchors, "wrist", size["height"], size["width"])
    return WristSamples(mapped, anchors, "wrist", *size.values())


def test_an_item(store):
    item = samples(StoreSource(store))[0]
    assert {name: x.shape for name, x in item.items() if name != "id"} == {
        "rgb": (5, 16, 16, 3),
        "map": (5, 16, 16, 3),
        "valid": (5, 16, 16),
        "anchors": (2, 5, 16, 16, 3),
        "K": (3, 3),
        "cam_from_world": (5, 4, 4),
    }
    assert item["id"].endswith("/wrist") and item["map"].dtype == np.uint8
    # In frame 0 the wrist camera stands where the front camera does, in the last 0.4 m off.
    front = StoreSource(store)[0].views["front"].rgb
    np.testing.assert_array_equal(item["map"][0, 1:-1, 1:-1], front[0, 1:-1, 1:-1])
    assert item["valid"][0, 1:-1, 1:-1].all() and 0.2 < item["valid"][4].mean() < 0.8
    assert not item["map"][~item["valid"]].any()


def test_a_map_of_a_known_robot(store):
    """It is gone where the anchors see it, and drawn where the wrist camera sees it."""
    clip = StoreSource(store)[0]
    left = np.arange(16) < 8
    views = {
        name: view._replace(robot_depth=np.float32(near) * np.ones((5, 16, 1)) * left)
        for (name, view), near in zip(clip.views.items(), (1.5, 1.5, 0.5), strict=True)
    }
    views["wrist"] = views["wrist"]._replace(
        robot_depth=views["wrist"].robot_depth[..., ::-1].copy()
    )
    known = clip._replace(views=views)
    seen = Mapped([known], ("front",), "wrist", 16, 16, robot=True)[0].views["map"]
    np.testing.assert_array_equal(seen.rgb[:, :, 8:], views["wrist"].robot_rgb[:, :, 8:])
    assert (seen.depth[:, :, 8:] == 0.5).all() and not seen.depth[0, :, :8].any()


def test_a_map_that_a_clip_brings_along(store):
    clip = Mapped(StoreSource(store), ("front",), "wrist", 16, 16)[0]
    item = samples([clip], ("front",))[0]
    np.testing.assert_array_equal(item["map"], clip.views["map"].rgb)
    with pytest.raises(InputError, match="its map is 16x16, need 8x8; draw it anew"):
        samples([clip], ("front",), height=8, width=8)[0]


def test_views_that_do_not_fit(store):
    clip = StoreSource(store)[0]
    short = clip.views["side"]
    short = short._replace(rgb=short.rgb[:3])
    bad = clip._replace(views=clip.views | {"side": short})
    with pytest.raises(InputError, match="side 3x16x16, wrist 5x16x16"):
        samples([bad])[0]
    with pytest.raises(InputError, match="no view 'top', it has"):
        samples([clip], ("front", "top"))[0]
    unknown = clip._replace(meta=clip.meta | {"calibrated": {"wrist": False}})
    with pytest.raises(InputError, match="view 'wrist' is uncalibrated"):
        samples([unknown])[0]
    for anchors in ((), ("wrist", "front")):
        with pytest.raises(InputError, match="need one or more anchors"):
            samples([clip], anchors)


# ------ the task

FILE = str(REPO / "configs/wristworld_video.py")


def config_of(store, **changes):
    config = load_config(FILE)
    with config.unlocked():
        config.update(steps=2, batch=2, checkpoint_every=2, sample_every=2)
        config.data = {"store": {"train": str(store), "test": str(store)}, **SIZE}
        config.data.update(anchors=("front", "side"), view="wrist", robot=False)
        config.model.dit.update(width=32, heads=2, layers=1, ffn=48, text_dim=16)
        config.model.update(hidden=16, frames=5)
        config.text.rows = 11
        config.image.thumbnail.side = 2
        config.sampler.steps = 2
        for group, values in changes.items():
            config[group].update(values)
    return config


@pytest.fixture(scope="module")
def batch(store):
    batch = next(iter(assemble(samples(StoreSource(store)), 2)))
    batch.pop("id")
    return batch


class Told:
    """A network of no weights that lets everything it is told through."""

    def __init__(self, net):
        self.config = net.config

    def apply(self, variables, x, condition, time, text, features, seen, rngs=None):
        views = seen * features.mean((1, 2, 3)) + text.mean((1, 2))
        told = condition.mean((1, 2, 3, 4)) + views + jnp.cos(time / 1000)
        return 0.3 * jnp.tanh(x + told[:, None, None, None, None])


def plain(store, **changes):
    """(task, params, frozen) with such a network."""
    task = build(config_of(store, **changes))
    task = dataclasses.replace(task, net=Told(task.net))
    text = np.random.default_rng(0).normal(size=(2, 11, 16)).astype(np.float32)
    frozen = {"codec": task.codec, "image": task.image, "model": {}}
    return task, {}, frozen | {"text": {"positive": text[0], "negative": text[1]}}


@pytest.mark.parametrize("holes", ["black", "filled"])
def test_no_frame_of_the_wrist_camera_is_an_input(store, batch, holes):
    task, params, frozen = plain(store, condition={"holes": holes})
    given = {name: x for name, x in batch.items() if name in ("map", "valid", "anchors")}
    video = jax.jit(task.sample)(params, frozen, given, KEY)
    assert video.rgb.shape == batch["rgb"].shape
    bar, seen = task.guess(frozen, given).rgb, batch["valid"]
    np.testing.assert_allclose(bar[seen], unit(batch["map"])[seen], atol=1e-6)


def test_what_is_withheld_leaves_no_trace(store, batch):
    other = batch | {"map": 255 - batch["map"], "valid": ~batch["valid"]}
    anchors = batch | {"anchors": batch["anchors"] // 2}

    def loss_of(**drop):
        task, params, frozen = plain(store, condition=drop)
        return jax.jit(lambda batch: task.loss(params, frozen, batch, KEY)[0])

    blind = loss_of(drop=1.0, drop_context=0.0)
    assert blind(batch) == blind(other) == blind(anchors)
    mapped = loss_of(drop=0.0, drop_context=1.0)
    assert mapped(batch) == mapped(anchors) != mapped(other)
    told = loss_of(drop=0.0, drop_context=0.0)
    assert told(batch) != told(anchors)


def test_guidance(store, batch):
    """At scale 1 there is none; beyond, "reference" and "cfg" differ."""

    def made(guidance, scale):
        sampler = {"guidance": guidance, "scale": scale}
        task, params, frozen = plain(store, sampler=sampler)
        return jax.jit(task.sample)(params, frozen, batch, KEY).rgb

    off = made("off", 5.0)
    np.testing.assert_allclose(made("cfg", 1.0), off, atol=1e-4)
    np.testing.assert_allclose(made("reference", 1.0), off, atol=1e-4)
    cfg, reference = made("cfg", 3.0), made("reference", 3.0)
    assert np.abs(cfg - off).max() > 1e-3 and np.abs(cfg - reference).max() > 1e-3


def test_low_rank_pairs(store):
    """Beside them train the view tokens and the patch embedding, whose new half is zero."""
    task = build(config_of(store, lora={"rank": 2}, condition={"new_std": 0.0}))
    params, frozen = jax.jit(task.init)(KEY)
    assert set(params) == {"lora", "added"}
    assert set(params["added"]) == {"views", "dit"} and set(params["added"]["dit"]) == {
        "patch"
    }
    assert set(params["lora"]["dit"]["blocks"]) == {"self", "cross", "ffn_in", "ffn_out"}
    kernel = params["added"]["dit"]["patch"]["kernel"]
    C = task.codec.channels
    assert kernel[..., :C, :].any() and not kernel[..., C:, :].any()
    assert "patch" not in frozen["model"]["dit"]


def test_text_from_a_file(tmp_path):
    path = tmp_path / "text.npz"
    text = np.random.default_rng(0).normal(size=(2, 11, 16)).astype(np.float32)
    np.savez(path, positive=text[0], negative=text[1])
    drawn = dict.fromkeys(("positive", "negative"), jnp.zeros((11, 16)))
    np.testing.assert_array_equal(load_text(str(path), drawn)["negative"], text[1])
    np.savez(path, positive=text[0, :5], negative=text[1, :5])
    with pytest.raises(InputError, match=r"\(5, 16\), need \(11, 16\)"):
        load_text(str(path), drawn)


def test_a_run_learns(store, tmp_path):
    """From two clips of noise: whole, with all that is dropped now and then."""
    config = config_of(store, condition={"drop": 0.1, "drop_context": 0.2})
    config.update(steps=40, checkpoint_every=40, sample_every=40)
    config.optimizer.update(lr=3e-3, warmup=2, decay="constant")
    config.model.dropout = 0.1
    loop.run(config, tmp_path)
    loss = [line["loss"] for line in metrics_of(tmp_path)]
    assert len(loss) == 40 and np.mean(loss[-5:]) < 0.8 * np.mean(loss[:5])
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["step_000040.gif"]


# ------ long videos


@pytest.mark.parametrize("total, overlap", [(5, 2), (6, 2), (13, 0), (13, 2), (14, 3)])
def test_windows(total, overlap):
    """They cover the whole, share what was asked for, and mix what they share."""
    plan = windows(total, 5, overlap)
    whole = np.random.default_rng(0).normal(size=(2, total, 3)).astype(np.float32)
    cut = plan.cut(whole)
    assert cut.shape == (len(plan.starts), 2, 5, 3)
    np.testing.assert_allclose(plan.mixed(cut), cut, atol=1e-6)
    np.testing.assert_array_equal(plan.joined(cut), whole)
    for one, next_ in zip(plan.owners, plan.owners[1:], strict=False):
        assert len(set(one) & set(next_)) >= overlap
    drawn = np.random.default_rng(1).normal(size=cut.shape).astype(np.float32)
    mixed = np.moveaxis(np.asarray(plan.mixed(drawn)), 2, 1).reshape(-1, 2, 3)
    for owner in np.unique(plan.owners):
        held = mixed[plan.owners.ravel() == owner]
        np.testing.assert_allclose(held, held[:1].repeat(len(held), 0), atol=1e-6)


def test_windows_that_cannot_be():
    with pytest.raises(InputError, match="3 latent frames: need 5"):
        windows(3, 5, 1)
    with pytest.raises(InputError, match="overlap=4: need 0 to 3"):
        windows(9, 5, 4)


class Still:
    """Knows best where every video is a still picture of unit normal numbers: their mean,
    given all frames of a window. Left to themselves, windows differ."""

    def __init__(self, net, moves):
        self.config, self.moves = net.config, moves  # channels that say what moves

    def apply(self, variables, x, condition, time, text, features, seen, rngs=None):
        s = (time / 1000)[:, None, None, None, None]
        total = x.sum(1, keepdims=True)
        clean = (1 - s) * total / (x.shape[1] * (1 - s) ** 2 + s**2)
        return jnp.broadcast_to(jnp.where(self.moves, 0, clean), x.shape)


def seam(video) -> float:
    """The largest change from one frame to the next, over the change from first to last."""
    change = np.abs(np.diff(video, axis=1)).mean((0, 2, 3, 4))
    return change.max() / np.abs(video[:, -1] - video[:, 0]).mean()


def test_long_videos_have_no_seams(store):
    config = config_of(store, flow={"prediction": "clean"}, data={"frames": 17})
    config.model.frames, config.text.rows, config.sampler.steps = 17, 35, 12
    config.codec.cosine.stride = (4, 8, 8)
    task = build(config)
    rng = np.random.default_rng(0)
    frames, sides = 47, (16, 16)
    still = np.repeat(rng.normal(size=(1, 1, *sides, 3)).astype(np.float32), 17, 1)
    moves = np.abs(task.codec.encode(still)).max((0, 1, 2, 3)) < 1e-4
    task = dataclasses.replace(task, net=Still(task.net, moves))
    given = {
        "map": rng.integers(0, 256, (1, frames, *sides, 3), np.uint8),
        "valid": np.ones((1, frames, *sides), bool),
        "anchors": rng.integers(0, 256, (1, 2, frames, *sides, 3), np.uint8),
    }
    frozen = {"codec": task.codec, "image": task.image, "model": {}}
    frozen["text"] = dict.fromkeys(("positive", "negative"), jnp.zeros((35, 16)))

    def made(overlap):
        video = wrist_video(task, {}, frozen, given, KEY, overlap)
        assert video.rgb.shape == (1, frames, *sides, 3)
        return np.asarray(video.rgb)

    hard, soft = seam(made(0)), seam(made(3))
    assert hard > 0.8 and soft < 0.3
    # A video of the model's own length is what `sample` draws.
    short = {k: x[:, :17] if k != "anchors" else x[:, :, :17] for k, x in given.items()}
    alone = wrist_video(task, {}, frozen, short, KEY).rgb
    np.testing.assert_allclose(alone, task.sample({}, frozen, short, KEY).rgb, atol=1e-5)
