"""The geometry of wrist views as a task: its data, what trains, where weights come from."""

import dataclasses
import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from clips import make_clip
from golden import jit
from runs import REPO, tool
from scenes import see

from w4d_jax.data.result import read_result
from w4d_jax.data.scene import SceneSamples
from w4d_jax.data.video import write_video
from w4d_jax.kin.camera import pointmap
from w4d_jax.kin.pose import decode_pose, encode_pose
from w4d_jax.kin.se3 import invert, transform
from w4d_jax.nets.checkpoint import Checkpoint, write_checkpoint
from w4d_jax.nets.lazy import held
from w4d_jax.nets.weights import flat, tree
from w4d_jax.npz import read_npz
from w4d_jax.train import geometry
from w4d_jax.train.config import filled, load_config
from w4d_jax.train.optim import OptimizerConfig, optimizer
from w4d_jax.train.task import build
from w4d_jax.train.workdir import claim, read_config
from w4d_jax.types import InputError

FILE = str(REPO / "configs/wristworld_geometry.py")
SIZE = 24, 32
KEY = jax.random.key(0)


def small():
    config = load_config(f"{FILE}:tiny").unlock()
    config.data.update({"height": SIZE[0], "width": SIZE[1]})
    pose = {"layers": 1, "heads": 2, "iterations": 2, "layer_scale": 1.0}
    config.model.update(
        {
            "stem": (),
            "patch": 4,
            "positions": 3,
            "width": 16,
            "heads": 2,
            "encoder_layers": 1,
            "encoder_heads": 2,
            "registers": 1,
            "camera": pose,
            "point": {"features": 8, "channels": (8, 8, 8, 8), "fine": ()},
            "wrist": {"layers": 2, "heads": 2, "dropout": 0.1, "pose": pose, "views": 0},
        }
    )
    config.pairs, config.loss.projection = 32, 1.0
    return config


def draw(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.float32(0.2 * rng.normal(size=x.shape)), shapes)


@pytest.fixture(scope="module")
def task():
    return geometry.build(small())


@pytest.fixture(scope="module")
def params(task):
    return draw(jax.eval_shape(task.init, KEY)[0])


@pytest.fixture(scope="module")
def batch():
    """Two moments of an exact scene; the second's cameras stand elsewhere."""

    def moment(shift):
        anchors = [
            see((0.9, 0.1 + shift, 0.7), (0, 0, 0.05), 30.0, *SIZE),
            see((0.1, -0.8, 0.9 + shift), (0, 0, 0.05), 34.0, *SIZE),
        ]
        wrist = see((0.15, 0.05, 0.5 + shift), (-0.05, 0.02, 0.0), 26.0, *SIZE)
        still = {f"wrist_{name}": x for name, x in wrist._asdict().items()}
        both = zip(*anchors, strict=True)
        return still | dict(zip(wrist._fields, map(np.stack, both), strict=True))

    moments = moment(0.0), moment(0.1)
    batch = {name: np.stack([m[name] for m in moments]) for name in moments[0]}
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (2, 3, *SIZE, 3), np.uint8)
    return batch | {"rgb": rgb[:, :2], "wrist_rgb": rgb[:, 2]}


@pytest.fixture(scope="module")
def slope(task):
    """params, frozen, batch -> ((loss, metrics), gradient)."""
    f = jax.value_and_grad(task.loss, has_aux=True)
    return jit(lambda params, frozen, batch: f(params, frozen, batch, KEY))


# ------ data


def test_moments_of_clips():
    clips = [make_clip(seed, frames=5) for seed in range(2)]
    items = SceneSamples(clips, ("front",), "wrist", 3, 7, 9)
    assert len(items) == 6
    assert [items[i]["id"] for i in (0, 2, 4)] == ["noise/0/0", "noise/0/4", "noise/1/2"]
    item, views = items[4], clips[1].views
    np.testing.assert_array_equal(item["rgb"], views["front"].rgb[2][None])
    np.testing.assert_array_equal(item["wrist_depth"], views["wrist"].depth[2])
    np.testing.assert_array_equal(item["K"][0], views["front"].camera.K)
    pose = views["wrist"].camera.cam_from_world[2]
    np.testing.assert_array_equal(item["wrist_cam_from_world"], pose)
    assert item["depth"].shape == (1, 7, 9) and item["cam_from_world"].shape == (1, 4, 4)


def test_views_that_are_not_there_are_refused():
    clips = [make_clip(0)]
    with pytest.raises(InputError, match="no view 'side'"):
        SceneSamples(clips, ("front", "side"), "wrist", 3, 7, 9)[0]
    for anchors in ((), ("wrist",)):
        with pytest.raises(InputError, match="need one or more anchors"):
            SceneSamples(clips, anchors, "wrist", 3, 7, 9)


# ------ what is learned


def test_loss_teaches_all_heads_and_needs_no_wrist_image(task, params, batch, slope):
    frozen = {"model": {}}
    (value, metrics), grads = slope(params, frozen, batch)
    assert np.isfinite(value) and metrics["spc_pairs"] > 20
    for part in ("aggregator", "camera", "point", "wrist"):
        assert optax.tree.norm(grads[part]) > 1e-3
    blind = batch | {"wrist_rgb": 0 * batch["wrist_rgb"]}
    assert slope(params, frozen, blind)[0][0] == value
    seen = batch | {"rgb": batch["rgb"][:, ::-1].copy()}
    assert slope(params, frozen, seen)[0][0] != value


def test_a_moment_of_unknown_depth_teaches_nothing(params, batch, slope):
    depths = {name: batch[name].copy() for name in ("depth", "wrist_depth")}
    for depth in depths.values():
        depth[1] = 0
    alone = {k: v[[0, 0]] for k, v in batch.items()}
    (value, metrics), grads = slope(params, {"model": {}}, batch | depths)
    assert np.isfinite(value) and np.isfinite(optax.tree.norm(grads))
    assert 0 < metrics["spc_pairs"] <= 32
    # Its cameras do not count either: those of the other moment alone do.
    (_, once), _ = slope(params, {"model": {}}, alone)
    np.testing.assert_allclose(metrics["camera"], once["camera"], rtol=1e-4)
    nothing = {name: 0 * depth for name, depth in depths.items()}
    (value, metrics), grads = slope(params, {"model": {}}, batch | nothing)
    assert value == metrics["spc_pairs"] == metrics["projection"] == 0
    assert optax.tree.norm(grads) == 0


def test_errors_are_in_metres_and_degrees(task, batch):
    """The truth, in a unit of its own, with the wrist 3 cm and 5 degrees off."""
    anchors, wrist = geometry.seen(batch, ""), geometry.seen(batch, "wrist_")
    aim = task.targets(None, anchors, wrist)
    angle = np.deg2rad(5)
    turn = np.eye(4, dtype=np.float32)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    shift = np.eye(4, dtype=np.float32)
    shift[0, 3] = 0.03
    first = batch["cam_from_world"][:, 0]
    moved = turn @ shift @ batch["wrist_cam_from_world"] @ np.asarray(invert(first))
    moved[:, :3, 3] /= aim.unit[:, None]
    said = geometry.Geometry(wrist=encode_pose(moved, wrist.K, *SIZE)[None])
    errors = geometry.wrist_errors(said, aim, SIZE)
    np.testing.assert_allclose(errors["wrist_metres"], 0.03, atol=1e-5)
    np.testing.assert_allclose(errors["wrist_degrees"], 5.0, atol=1e-3)


def test_frozen_points_lend_their_unit(task, batch):
    """Predicted points at a third of the scale: poses and depths follow."""
    frozen = dataclasses.replace(task, trains=("wrist",))
    anchors, wrist = geometry.seen(batch, ""), geometry.seen(batch, "wrist_")
    own = task.targets(None, anchors, wrist)
    metric = own.points * own.unit[:, None, None, None, None]
    said = geometry.Geometry(points=metric / 3)
    aim = frozen.targets(said, anchors, wrist)
    np.testing.assert_allclose(aim.unit, 3, rtol=1e-5)
    np.testing.assert_allclose(aim.points, metric / 3, atol=1e-5)
    ratio = aim.wrist[:, :3] / own.wrist[:, :3]
    np.testing.assert_allclose(ratio, np.tile(own.unit[:, None] / 3, 3), rtol=1e-4)


def test_what_does_not_train_is_no_parameter(params, batch):
    config = small()
    config.model.trains = ("camera", "wrist")
    task = geometry.build(config)
    trained, frozen = jax.eval_shape(task.init, KEY)
    assert set(trained) == {"camera", "wrist"}
    assert set(frozen["model"]) == {"aggregator", "point"}
    assert jax.tree.leaves(frozen) and build(config).items


def test_drawn_heads_begin_calm(task, params):
    """Cameras at the first one, points one unit before it; nothing else is touched."""
    before, after = flat(params), flat(task.begin(params))
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    heads = {"camera/branch/out": 2, "wrist/refine/branch/out": 2, "point/out2": 1}
    assert moved == {f"{head}/{part}" for head in heads for part in ("kernel", "bias")}
    for head, times in heads.items():
        bias, kernel = f"{head}/bias", f"{head}/kernel"
        np.testing.assert_allclose(after[kernel], 0.01 * before[kernel], rtol=1e-6)
        said = times * (after[bias] - before[bias])
        if head == "point/out2":
            np.testing.assert_allclose(np.expm1(said[:3]), [0, 0, 1], atol=1e-6)
        else:
            pose, _ = decode_pose(said, *SIZE)
            np.testing.assert_allclose(pose, np.eye(4), atol=1e-6)
            np.testing.assert_allclose(said[7:], [1, 1], atol=1e-6)


def test_a_wrist_begins_in_the_middle_of_moments(task, params, batch):
    """Two moments: their mean place, the turn halfway, whatever the picture shows."""
    moments = [{k: v[i] for k, v in batch.items() if k != "id"} for i in range(2)]
    begun = task.in_the_middle(task.begin(params), moments)
    leaves = flat(begun)
    quiet = tree({k: v * ("branch/out/kernel" not in k) for k, v in leaves.items()})
    scene = jit(task.sample)(quiet, {"model": {}}, batch, KEY)
    anchors, wrist = geometry.seen(batch, ""), geometry.seen(batch, "wrist_")
    true, _ = decode_pose(task.targets(None, anchors, wrist).wrist[:2], *SIZE)
    place = np.asarray(invert(true))[:, :3, 3].mean(0)
    for pose in np.asarray(scene.cam_from_world):
        np.testing.assert_allclose(invert(pose)[:3, 3], place, atol=1e-5)
        turns = [np.trace(pose[:3, :3].T @ np.asarray(x)[:3, :3]) for x in true]
        np.testing.assert_allclose(turns[0], turns[1], atol=1e-5)


# ------ what it says


def test_scene(task, params, batch):
    scene = jit(task.sample)(params, {"model": {}}, batch, KEY)
    B, V = batch["rgb"].shape[:2]
    shapes = [(B, V, *SIZE, 3), (B, V, *SIZE), (B, V, 4, 4), (B, 4, 4), (B, 3, 3)]
    assert [x.shape for x in scene] == shapes
    guess = task.guess({"model": {}}, batch)
    assert [x.shape for x in guess] == shapes


def test_the_true_scene_looks_like_the_wrist_view(task, batch):
    """In colours that say how high a point lies: on the card, and well away from it.

    At its edge the net of anchor pixels, 3 cm wide here, also spans from card to table.
    """
    anchors, wrist = geometry.seen(batch, ""), geometry.seen(batch, "wrist_")
    aim = task.targets(None, anchors, wrist)
    said = geometry.Geometry(aim.pose[None], points=aim.points, wrist=aim.wrist[None])
    scene = task.scene(said._replace(points_confidence=np.ones(aim.depth.shape)))

    @partial(np.vectorize, signature="(h,w),(i,i),(j,j)->(h,w,i)")
    def world(depth, K, cam_from_world):
        points = np.asarray(pointmap(depth, K)).reshape(-1, 3)
        return transform(invert(cam_from_world), points).reshape(*depth.shape, 3)

    def color(points):
        return np.uint8(np.round(50 + 1000 * points[..., 2:].clip(0, 0.2).repeat(3, -1)))

    maps, truth = geometry.drawn({"rgb": color(world(*anchors))}, scene), world(*wrist)
    aside = np.abs(truth[..., :2]).max(-1)
    on_card, away = (truth[..., 2] > 0.1) & (aside < 0.06), aside > 0.3
    assert on_card.mean() > 0.01
    np.testing.assert_allclose(maps[on_card], color(truth)[on_card], atol=1)
    seen = away & (maps > 0).any(-1)
    assert seen.mean() > 0.2
    np.testing.assert_allclose(maps[seen], color(truth)[seen], atol=1)


# ------ the command

VIDEO = str(REPO / "configs/wristworld_video.py")


@pytest.fixture(scope="module")
def wrist():
    return tool("wrist")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Runs of no steps, which are what they draw, and videos of two anchors."""
    folder = tmp_path_factory.mktemp("wrist")
    geometry, video = small(), load_config(VIDEO).unlock()
    video.data.update(frames=5, height=16, width=16)
    video.model.dit.update(width=32, heads=2, layers=1, ffn=32, text_dim=16)
    video.model.update(hidden=16, frames=5)
    video.text.rows, video.sampler.steps = 11, 1
    for name, config in (("geometry", geometry), ("video", video)):
        config.steps = 0
        claim(folder / name, config)
    rng = np.random.default_rng(0)
    for name, frames in (("front", 6), ("side", 6), ("short", 5)):
        rgb = rng.integers(0, 256, (frames, 48, 80, 3), np.uint8)
        write_video(folder / f"{name}.mp4", rgb, 5)
    return folder


def asked(folder, *anchors, **more):
    words = ["--anchors", *(str(folder / f"{name}.mp4") for name in anchors)]
    for name, value in more.items():
        words += [f"--{name}", str(folder / value)]
    return words


def test_anchor_videos_alone_give_a_wrist_video(wrist, files):
    runs = {"geometry": "geometry", "video": "video"}
    assert wrist.main(asked(files, "front", "side", out="made", **runs)) == 0
    made = read_result(files / "made")
    more = {"map": "u1 6 16 16 3", "valid": "b1 6 16 16", "points": "f4 6 2 24 32 3"}
    more = read_npz(files / "made" / "clip.npz", more | {"confidence": "f4 6 2 24 32"})
    assert made.rgb.shape == more["map"].shape
    assert made.camera.cam_from_world.shape == (6, 4, 4)
    assert not more["map"][~more["valid"]].any() and np.ptp(more["points"]) > 0


@pytest.mark.parametrize(
    ("anchors", "more", "said"),
    [
        (("front", "short"), {"geometry": "geometry"}, "6x48x80, 5x48x80"),
        (("front",), {"geometry": "geometry"}, "takes 2 anchors, given 1"),
        (("front", "side"), {"geometry": "video"}, "a run of wristworld_video, need"),
        (("front", "side"), {"video": "video"}, "need --geometry"),
    ],
)
def test_anchors_that_do_not_fit(wrist, files, capsys, anchors, more, said):
    assert wrist.main(asked(files, *anchors, out="none", **more)) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (files / "none").exists()


# ------ presets, files, limits


def presets():
    with pytest.raises(InputError, match="preset 'no such'") as caught:
        load_config(f"{FILE}:no such")
    return re.search("one of (.*)$", str(caught.value))[1].split(", ")


@pytest.mark.parametrize("preset", presets())
def test_preset(preset, tmp_path):
    config = load_config(f"{FILE}:{preset}")
    filled(OptimizerConfig, config.optimizer, "optimizer")
    shapes = jax.eval_shape(build(config).init, KEY)
    trains = config.model.trains
    assert set(shapes[0]) == set(trains or ("aggregator", "camera", "point", "wrist"))
    claim(tmp_path / "run", config)
    again = read_config(tmp_path / "run")
    assert build(again) is not None
    entry = json.loads(again.to_json())
    entry.pop("lora")
    assert entry == json.loads(config.to_json())


def test_a_base_without_the_new_head(tmp_path):
    """VGGT-1B's form: what it has is read, the wrist head stays drawn, and calm."""
    config = small()
    config.model.trains = ("camera", "wrist")
    config.model.base = str(tmp_path)
    task = geometry.build(config)
    shapes = jax.eval_shape(task.init, KEY)
    drawn, given = (draw(shapes, seed) for seed in (1, 2))
    whole = flat({k: v for k, v in (given[0] | given[1]["model"]).items() if k != "wrist"})
    file = {name: held(x) for name, x in whole.items()}
    net = dataclasses.replace(task.net.config, wrist=None)
    write_checkpoint(tmp_path, Checkpoint("vggt", net, file))
    put = jax.tree.map(jnp.asarray, drawn)
    params, frozen = task.begin(put[0]), task.load(put[1])
    for ours, wanted in (
        (params["camera"], given[0]["camera"]),
        (params["wrist"], geometry.calm(drawn[0], task.net.config)["wrist"]),
        (frozen["model"], given[1]["model"]),
    ):
        jax.tree.map(np.testing.assert_array_equal, ours, wanted)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("data.height", 61, r"height=61: need a multiple of patch=4 \(try 60\)"),
        ("model.point", None, "config.model.point=None"),
        ("model.width", 20, "width=20: need a multiple of"),
        ("model.size", 5, "config.model.*size"),
        ("loss.depth", 1.0, "config.loss.depth=1, but config.model.depth=None"),
        ("loss.sharp", 1.0, "config.loss: no such key sharp"),
        ("model.trains", ("hand",), "config.model.trains: hand"),
    ],
)
def test_configs_that_do_not_fit_are_refused_in_one_line(key, value, said):
    config = small()
    group = config
    *path, last = key.split(".")
    for name in path:
        group = group[name]
    group[last] = value
    with pytest.raises(InputError, match=said) as caught:
        geometry.build(config)
    assert "\n" not in str(caught.value)


# ------ parts that learn by themselves


def test_parts_of_an_optimiser():
    """Each is clipped by its own norm; its rate is multiplied."""
    config = OptimizerConfig(
        lr=0.1, warmup=0, weight_decay=0.0, eps=1e-3, clip=1.0, parts=(("slow", 0.25),)
    )
    params = {"slow": {"a": jnp.ones(3)}, "fast": {"b": jnp.ones(3)}}
    grads = {"slow": {"a": jnp.full(3, 1e3)}, "fast": {"b": jnp.full(3, 1e-3)}}

    def step(config, params, grads):
        tx = optimizer(config, 10)
        return tx.update(grads, tx.init(params), params)[0]

    both = step(config, params, grads)
    plain = dataclasses.replace(config, parts=())
    fast = step(plain, params["fast"], grads["fast"])
    slow = step(dataclasses.replace(plain, lr=0.025), params["slow"], grads["slow"])
    np.testing.assert_allclose(both["fast"]["b"], fast["b"], rtol=1e-6)
    np.testing.assert_allclose(both["slow"]["a"], slow["a"], rtol=1e-6)
    together = step(plain, params, grads)
    assert not np.allclose(together["fast"]["b"], fast["b"])
    with pytest.raises(InputError, match=r"optimizer.parts: no slow trains, but fast"):
        step(config, {"fast": params["fast"]}, {"fast": grads["fast"]})
