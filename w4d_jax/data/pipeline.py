"""Clips -> batches for training: a grain dataset whose iterator can be saved and resumed.

An item is one view of one clip. Time: `frames` frames uniformly over the whole episode, the
first and the last always among them, so that a sample holds the act from start to end.
Space: the largest centred crop of the target's aspect, then RGB by an antialiased filter
and depths by the nearest pixel (a mean of two surfaces lies on neither); K follows exactly.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from PIL import Image

from w4d_jax.data.skip import SkipBad
from w4d_jax.kin.control import normaliser
from w4d_jax.types import Camera, Clip, InputError, View


def batches(
    source,
    *,
    batch: int,
    frames: int,
    height: int,
    width: int,
    view: str | tuple[str, ...],
    multiple: int = 1,
    seed: int = 0,
    shuffle: bool = True,
    repeat: bool = True,
    rows: Sequence[int] | None = None,
    bad_share: float = 0.0,
    threads: int = 2,
    prefetch: int = 4,
) -> grain.IterDataset:
    """Batches of `source`, a random-access source of Clip.

    rgb and robot_rgb u8[B,T,H,W,3], depth and robot_depth f32[B,T,H,W], K f32[B,3,3],
    cam_from_world f32[B,T,4,4], center f32[B,3] and scale f32[B] (kin/control.py),
    actions f32[B,T,8] (types.Clip), id str[B]: "clip/view".

    view: one name, or several to take each clip once by each.
    multiple: what both sides must be divisible by (VAE stride x patch).
    repeat: endless, in a new order each time round; else one pass, the last batch shorter.
    rows: those of a batch that this process reads; None: all. The order of clips, and so
    every batch, is the same however many processes share it.
    bad_share: the share of unusable items to skip (`SkipBad`).
    threads: of this process. `iter(...)` has get_state() and set_state(), bit-exact.
    """
    check_sizes(frames, height, width, multiple)
    items = SkipBad(Samples(source, names(view), frames, height, width), bad_share)
    return assemble(items, batch, seed, shuffle, repeat, rows, threads, prefetch)


def assemble(
    items,
    batch: int,
    seed: int = 0,
    shuffle: bool = True,
    repeat: bool = True,
    rows: Sequence[int] | None = None,
    threads: int = 2,
    prefetch: int = 4,
) -> grain.IterDataset:
    """Batches of `items`, random access to dicts of arrays; options as of `batches`."""
    if batch < 1 or len(items) < (batch if repeat else 1):
        raise InputError(f"batch={batch}: there are {len(items)} items")
    order = grain.MapDataset.range(len(items)).seed(seed)
    if shuffle:
        order = order.shuffle()
    if repeat:
        order = order.repeat()

    def read(chosen: np.ndarray) -> dict:
        mine = chosen if rows is None else chosen[list(rows)]
        parts = [items[int(i)] for i in mine]
        return {name: np.stack([part[name] for part in parts]) for name in parts[0]}

    data = order.batch(batch, drop_remainder=repeat).map(read)
    return data.to_iter_dataset(grain.ReadOptions(threads, prefetch))


def names(view) -> tuple[str, ...]:
    """One view's name, or several, as a tuple."""
    return (view,) if isinstance(view, str) else tuple(view)


def check_sizes(frames: int, height: int, width: int, multiple: int = 1) -> None:
    """InputError unless the causal VAE can take such a clip."""
    if frames < 1 or frames % 4 != 1:
        raise InputError(
            f"frames={frames}: need 4k+1 (try {max(1, 4 * round(frames / 4) + 1)})"
        )
    for name, side in (("height", height), ("width", width)):
        if side < 1 or side % multiple:
            near = max(multiple, multiple * round(side / multiple))
            raise InputError(f"{name}={side}: need a multiple of {multiple} (try {near})")


@dataclasses.dataclass(frozen=True)
class Samples:
    """Item i is view i % V of clip i // V, cut to size."""

    source: Any  # random access to Clip
    views: tuple[str, ...]
    frames: int
    height: int
    width: int

    def __post_init__(self):
        if not self.views:
            raise InputError("view: names no view, need one or more")

    def __len__(self) -> int:
        return len(self.source) * len(self.views)

    def __getitem__(self, index: int) -> dict:
        clip, view = divmod(index, len(self.views))
        size = self.frames, self.height, self.width
        return sample(self.source[clip], self.views[view], *size)


def sample(clip: Clip, view: str, frames: int, height: int, width: int) -> dict:
    """One item of `batches`, without the leading axis."""
    if view not in clip.views:
        raise InputError(f"clip {clip.id}: no view {view!r}, it has {list(clip.views)}")
    if "reach" not in clip.meta:
        raise InputError(
            f"clip {clip.id}: meta has no 'reach' of the robot; prepare it again"
        )
    if not clip.meta.get("calibrated", {}).get(view, True):
        raise InputError(
            f"clip {clip.id}: view {view!r} is uncalibrated; prepare with its camera"
        )
    at = pick(clip, frames)
    camera, rgb, depth, robot_depth, robot_rgb = cut(clip.views[view], at, height, width)
    center, scale = normaliser(clip.meta["reach"], camera)
    return {
        "rgb": rgb,
        "depth": depth,
        "robot_depth": robot_depth,
        "robot_rgb": robot_rgb,
        "K": camera.K,
        "cam_from_world": camera.cam_from_world,
        "center": np.asarray(center, np.float32),
        "scale": np.asarray(scale, np.float32),
        "actions": np.asarray(clip.actions[at], np.float32),
        "id": f"{clip.id}/{view}",
    }


def pick(clip: Clip, frames: int) -> np.ndarray:
    """i64[frames]: uniform over the clip, ends included, no frame twice."""
    have = len(clip.joints)
    if have < frames:
        fit = (have - 1) // 4 * 4 + 1
        raise InputError(f"clip {clip.id}: {have} frames, need {frames} (try frames={fit})")
    return np.round(np.linspace(0, have - 1, frames)).astype(int)


def cut(view: View, at: np.ndarray, height: int, width: int) -> View:
    """The frames `at` of a view, centre-cropped to height : width and resized; T poses."""
    box, camera = frame(view.camera, height, width)
    left, top, right, bottom = box
    poses = camera.cam_from_world
    poses = poses[at] if poses.ndim == 3 else np.tile(poses, (len(at), 1, 1))
    # The source pixel whose centre is nearest to that of each target pixel.
    rows = top + ((np.arange(height) + 0.5) * (bottom - top) / height).astype(int)
    columns = left + ((np.arange(width) + 0.5) * (right - left) / width).astype(int)

    def nearest(x):
        return x[at[:, None], rows].take(columns, 2)

    return View(
        dataclasses.replace(camera, cam_from_world=poses),
        resize(view.rgb[at], box, height, width),
        nearest(view.depth),
        nearest(view.robot_depth),
        nearest(view.robot_rgb),
    )


def frame(camera: Camera, height: int, width: int) -> tuple[tuple, Camera]:
    """The largest centred box (left, top, right, bottom) of the aspect height : width, and
    the camera that sees it as height x width pixels."""
    high = min(camera.height, max(1, round(camera.width * height / width)))
    wide = min(camera.width, max(1, round(camera.height * width / height)))
    top, left = (camera.height - high) // 2, (camera.width - wide) // 2
    K = camera.K - np.array([[0, 0, left], [0, 0, top], [0, 0, 0]], np.float32)
    inside = Camera(wide, high, K, camera.cam_from_world).resized(height, width)
    return (left, top, left + wide, top + high), inside


def resize(images: np.ndarray, box: tuple, height: int, width: int) -> np.ndarray:
    """The box (left, top, right, bottom) of images u8[N,H,W,3], filtered to the size."""
    size, smooth = (width, height), Image.Resampling.BILINEAR
    small = (Image.fromarray(image).resize(size, smooth, box) for image in images)
    return np.stack([np.asarray(image) for image in small])
