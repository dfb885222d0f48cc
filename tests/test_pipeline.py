"""The pipeline: pixels, depth and camera stay in register; order resumes to the bit."""

import logging
from itertools import chain

import numpy as np
import pytest
from clips import make_clip

from w4d_jax.data.pipeline import batches, check_sizes, cut, pick, sample
from w4d_jax.data.skip import SkipBad
from w4d_jax.data.store import StoreSource, write
from w4d_jax.types import Camera, InputError, View

SIZE = {"frames": 5, "height": 8, "width": 12, "view": "front"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("pipeline") / "store"
    clips = [make_clip(i, frames=5 + i, height=16, width=24) for i in range(7)]
    write(path, clips, label="noise", shard_clips=3)
    return StoreSource(path)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def ids(iterator, count):
    return [id for _ in range(count) for id in next(iterator)["id"]]


def test_a_batch_is_as_documented(source):
    out = next(iter(batches(source, batch=2, **SIZE)))
    want = {
        "rgb": ("uint8", (2, 5, 8, 12, 3)),
        "depth": ("float32", (2, 5, 8, 12)),
        "robot_depth": ("float32", (2, 5, 8, 12)),
        "robot_rgb": ("uint8", (2, 5, 8, 12, 3)),
        "K": ("float32", (2, 3, 3)),
        "cam_from_world": ("float32", (2, 5, 4, 4)),
        "center": ("float32", (2, 3)),
        "scale": ("float32", (2,)),
        "actions": ("float32", (2, 5, 8)),
    }
    assert {k: (v.dtype.name, v.shape) for k, v in out.items() if k != "id"} == want
    assert all(id.startswith("noise/") and id.endswith("/front") for id in out["id"])
    np.testing.assert_array_equal(out["center"], out["cam_from_world"][:, 0, :3, 3])
    np.testing.assert_array_equal(out["scale"], 4.0)


def test_a_resumed_iterator_goes_on_to_the_bit(source):
    """Across the end of a pass, with threads, from a fresh dataset."""
    options = SIZE | {"view": ("front", "wrist"), "batch": 4, "seed": 3}
    running = iter(batches(source, **options))
    for _ in range(2):
        next(running)
    state = running.get_state()
    ahead = [next(running) for _ in range(4)]
    resumed = iter(batches(source, **options))
    resumed.set_state(state)
    assert all(same(a, next(resumed)) for a in ahead)


def test_every_pass_has_each_item_once_in_a_new_order(source):
    items = iter(batches(source, batch=7, **SIZE))
    passes = [ids(items, 1) for _ in range(3)]
    assert len({tuple(p) for p in passes}) == 3
    assert all(sorted(p) == [f"{id}/front" for id in source.ids] for p in passes)
    other = iter(batches(source, batch=7, seed=1, **SIZE))
    assert ids(other, 1) != passes[0]


def test_one_pass_in_order_keeps_the_last_short_batch(source):
    options = {"batch": 3, "shuffle": False, "repeat": False} | SIZE
    got = [list(b["id"]) for b in batches(source, **options)]
    assert [len(b) for b in got] == [3, 3, 1]
    assert list(chain(*got)) == [f"{id}/front" for id in source.ids]


def test_processes_share_a_batch(source):
    """However many they are: the batches are those of one process, cut in parts."""
    options = SIZE | {"view": ("front", "wrist"), "batch": 4}
    whole, *parts = (
        iter(batches(source, rows=rows, **options)) for rows in (None, [0, 1], [2], [3])
    )
    for _ in range(5):
        want, got = next(whole), [next(part) for part in parts]
        assert all(
            np.array_equal(x, np.concatenate([part[name] for part in got]))
            for name, x in want.items()
        )


def ramp(height, width) -> View:
    """A view whose colours and depth are linear in the ray: they tell where it looks."""
    K = np.array([[50, 0, 0.4 * width], [0, 60, 0.6 * height], [0, 0, 1]], np.float32)
    camera = Camera(width, height, K, np.eye(4, dtype=np.float32))
    x, y = rays(camera)
    rgb = np.stack([128 + 100 * x + 0 * y, 128 + 100 * y + 0 * x, 0 * x + 0 * y], -1)
    z = (2 + 0.5 * x + 0.25 * y).astype(np.float32)
    rgb = np.round(rgb).astype(np.uint8)[None]
    return View(camera, rgb, z[None], z[None] / 2, 255 - rgb)


def rays(camera):
    u, v = np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5
    K = camera.K
    return (u - K[0, 2]) / K[0, 0], ((v - K[1, 2]) / K[1, 1])[:, None]


@pytest.mark.parametrize(
    ("size", "to"),
    [((40, 60), (20, 30)), ((40, 60), (24, 24)), ((41, 60), (8, 40)), ((30, 31), (60, 90))],
)
def test_colour_depth_and_intrinsics_stay_in_register(size, to):
    out = cut(ramp(*size), np.array([0]), *to)
    assert out.rgb.shape == (1, *to, 3) and (out.camera.height, out.camera.width) == to
    x, y = rays(out.camera)
    inner = np.s_[2:-2, 2:-2]  # at the border the filter is one-sided
    for channel, ray in ((0, x + 0 * y), (1, y + 0 * x)):
        error = out.rgb[0, ..., channel] - (128 + 100 * ray)
        assert np.abs(error[inner]).max() < 1.1  # grey levels: two roundings
        assert np.abs(error[inner].mean()) < 0.4  # half a source pixel is 1
    # Depth is that of a source pixel at most half a source pixel away.
    slack = 0.5 * (0.5 / 50 + 0.25 / 60) + 1e-6
    assert np.abs(out.depth[0] - (2 + 0.5 * x + 0.25 * y)).max() <= slack
    np.testing.assert_array_equal(out.robot_depth, out.depth / 2)


def test_same_size_is_bit_exact_and_odd_shrinking_keeps_points():
    view = ramp(30, 45)
    out = cut(view, np.array([0]), 30, 45)
    np.testing.assert_array_equal(out.rgb, view.rgb)
    np.testing.assert_array_equal(out.depth, view.depth)
    out = cut(view, np.array([0]), 10, 15)
    np.testing.assert_array_equal(out.depth, view.depth[:, 1::3, 1::3])
    x, y = rays(out.camera)
    np.testing.assert_allclose(out.depth[0], 2 + 0.5 * x + 0.25 * y, atol=1e-6)


def test_frames_are_uniform_with_both_ends():
    assert pick(make_clip(0, frames=9), 9).tolist() == list(range(9))
    assert pick(make_clip(0, frames=17), 5).tolist() == [0, 4, 8, 12, 16]
    at = pick(make_clip(0, frames=58), 49)
    assert at[0] == 0 and at[-1] == 57 and set(np.diff(at)) == {1, 2}
    with pytest.raises(InputError, match=r"noise/0: 7 frames, need 9 \(try frames=5\)"):
        pick(make_clip(0, frames=7), 9)


def test_a_moving_camera_keeps_its_pose_of_each_frame():
    clip = make_clip(2, frames=9)
    out = sample(clip, "wrist", 5, 7, 9)
    poses = clip.views["wrist"].camera.cam_from_world
    np.testing.assert_array_equal(out["cam_from_world"], poses[::2])
    np.testing.assert_array_equal(out["center"], poses[0, :3, 3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 48}, r"frames=48: need 4k\+1 \(try 49\)"),
        ({"frames": 0}, r"frames=0: need 4k\+1 \(try 1\)"),
        ({"height": 20, "multiple": 16}, r"height=20: need a multiple of 16 \(try 16\)"),
        ({"width": 0}, r"width=0: need a multiple of 1 \(try 1\)"),
        ({"batch": 8}, "batch=8: there are 7 items"),
        ({"view": ()}, "view"),
        ({"view": "top"}, r"clip noise/\d: no view 'top', it has \['front', 'wrist'\]"),
        ({"frames": 13}, r"clip noise/\d: \d+ frames, need 13"),
    ],
)
def test_what_cannot_be_is_an_input_error(source, change, message):
    with pytest.raises(InputError, match=message):
        next(iter(batches(source, **({"batch": 2} | SIZE | change))))


def test_good_sizes_pass():
    for frames in (1, 5, 49, 81):
        check_sizes(frames, 480, 720, 16)


def test_a_clip_without_what_the_normaliser_needs_is_refused():
    clip = make_clip(0)
    with pytest.raises(InputError, match="no 'reach'"):
        sample(clip._replace(meta={}), "front", 5, 7, 9)
    with pytest.raises(InputError, match="'front' is uncalibrated"):
        meta = clip.meta | {"calibrated": {"front": False, "wrist": True}}
        sample(clip._replace(meta=meta), "front", 5, 7, 9)


class Holes:
    """A source whose records in `bad` cannot be read."""

    def __init__(self, clips, bad):
        self.clips, self.bad = clips, bad

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        if index in self.bad:
            raise InputError(f"record {index}: damaged")
        return self.clips[index]


def test_bad_records_are_replaced_counted_and_logged_once(caplog):
    source = SkipBad(Holes("abcdefgh", {2, 3, 7}), 0.5)
    with caplog.at_level(logging.WARNING):
        for order in (range(8), reversed(range(8))):
            assert {i: source[i] for i in order} == dict(enumerate("abeeefga"))
    assert sorted(source.bad) == [2, 3, 7]
    said = [r.getMessage() for r in caplog.records]  # other tests' threads may still talk
    assert sorted(line[-17:] for line in said if line.endswith("damaged")) == [
        f"record {i}: damaged" for i in (2, 3, 7)
    ]


def test_too_many_bad_records_stop_the_run():
    source = SkipBad(Holes("abcd", {1, 2}), 0.25)
    assert source[0] == "a" and source[3] == "d"
    with pytest.raises(InputError, match=r"2 of 4 records bad, allowed 25\.00%"):
        source[1]
    with pytest.raises(InputError, match="record 1: damaged"):
        SkipBad(Holes("abcd", {1}), 0.0)[1]
    for share in (-0.1, 1.0):
        with pytest.raises(InputError, match="share"):
            SkipBad("abcd", share)


def test_skipping_keeps_the_order_and_resumes_to_the_bit():
    clips = [make_clip(i, frames=5 if i != 4 else 3) for i in range(8)]
    options = SIZE | {"batch": 2, "bad_share": 0.25, "seed": 5}
    running = iter(batches(Holes(clips, {6}), **options))
    first = ids(running, 4)
    assert len(first) == 8 and not {"noise/4/front", "noise/6/front"} & set(first)
    state = running.get_state()
    resumed = iter(batches(Holes(clips, {6}), **options))
    resumed.set_state(state)
    assert all(same(next(running), next(resumed)) for _ in range(4))
    with pytest.raises(InputError, match="noise/4: 3 frames, need 5"):
        ids(iter(batches(Holes(clips, {6}), **(options | {"bad_share": 0.1}))), 8)
