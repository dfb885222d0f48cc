"""Anchor views, and what they show of the wrist camera's view: data of WristWorld.

The condition map is the view "map" of a clip: the anchors' surfaces as the wrist camera
sees them (kin/warp.py), depth 0 where it sees none. It is drawn from the clip's own depths
and cameras, whether measured, simulated or predicted, unless the clip brings it along.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.data.pipeline import cut, pick
from w4d_jax.kin.camera import pointmap, to_world
from w4d_jax.kin.render import SceneView
from w4d_jax.kin.se3 import invert
from w4d_jax.kin.warp import Anchors, condition_map, with_robot
from w4d_jax.types import Clip, InputError, View

MAP = "map"


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A source whose clips have the view "map" as well, height x width pixels of the wrist
    view after its cut to that size.

    robot: whether kinematics are known too. Then the robot is taken out of the anchors and
    drawn where it is.
    """

    source: Any  # random access to Clip
    anchors: tuple[str, ...]
    wrist: str
    height: int
    width: int
    robot: bool = False

    def __post_init__(self):
        if not self.anchors or self.wrist in self.anchors:
            raise InputError(
                f"anchors {list(self.anchors)}, view {self.wrist!r}: need one or more "
                "anchors, none of them the view to make"
            )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index) -> Clip:
        clip = self.source[index]
        check(clip, self.anchors, self.wrist)
        if MAP in clip.views:
            return clip
        anchors = [clip.views[name] for name in self.anchors]
        if self.robot:
            anchors = [without_robot(view) for view in anchors]
        wrist = clip.views[self.wrist]
        wrist = cut(wrist, np.arange(len(wrist.rgb)), self.height, self.width)
        seen = condition_map(surfaces(anchors), wrist.camera)
        if self.robot:
            link = np.where(wrist.robot_depth > 0, 0, -1)
            alone = wrist.robot_rgb, wrist.robot_depth, link
            seen = with_robot(seen, SceneView(*map(jnp.asarray, alone)))
        rgb, depth, _ = jax.device_get(seen)
        drawn = View(wrist.camera, rgb, depth, np.zeros_like(depth), np.zeros_like(rgb))
        return clip._replace(views=clip.views | {MAP: drawn})


def surfaces(views: Sequence[View]) -> Anchors:
    """What the views know of the world."""
    frames = len(views[0].depth)
    poses = [np.broadcast_to(x.camera.cam_from_world, (frames, 4, 4)) for x in views]
    points = [
        to_world(pointmap(view.depth, view.camera.K), pose)
        for view, pose in zip(views, poses, strict=True)
    ]
    rgb, valid = [view.rgb for view in views], [view.depth > 0 for view in views]
    eyes = [invert(pose)[:, :3, 3] for pose in poses]
    return Anchors(*(np.stack(x, 1) for x in (points, rgb, valid, eyes)))


def without_robot(view: View) -> View:
    """The view with nothing known where the robot is."""
    return view._replace(depth=np.where(view.robot_depth > 0, 0, view.depth))


def check(clip: Clip, anchors: Sequence[str], wrist: str) -> None:
    """InputError unless the clip has the views, calibrated, of one length, and the anchors
    of one size."""
    for name in (*anchors, wrist):
        if name not in clip.views:
            raise InputError(f"clip {clip.id}: no view {name!r}, it has {list(clip.views)}")
        if not clip.meta.get("calibrated", {}).get(name, True):
            raise InputError(
                f"clip {clip.id}: view {name!r} is uncalibrated; prepare with its camera"
            )
    sizes = {name: clip.views[name].rgb.shape[:3] for name in (*anchors, wrist)}
    lengths = {size[0] for size in sizes.values()}
    if len(lengths) > 1 or len({sizes[name] for name in anchors}) > 1:
        have = ", ".join(f"{k} {'x'.join(map(str, v))}" for k, v in sizes.items())
        raise InputError(
            f"clip {clip.id}: views of {have} (TxHxW), need one length, and anchors of one "
            "size; prepare them alike"
        )


@dataclasses.dataclass(frozen=True)
class WristSamples:
    """Item i is clip i as train/wristworld.py takes it.

    rgb and map u8[T,H,W,3], valid bool[T,H,W], anchors u8[V,T,H,W,3], the wrist camera's
    K f32[3,3] and cam_from_world f32[T,4,4], id str: "clip/view".
    """

    source: Any  # of `Mapped`
    anchors: tuple[str, ...]
    wrist: str
    frames: int
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index) -> dict:
        clip, size = self.source[index], (self.height, self.width)
        at = pick(clip, self.frames)
        wrist, seen = cut(clip.views[self.wrist], at, *size), clip.views[MAP]
        if seen.rgb.shape[1:3] != size:
            have = "x".join(map(str, seen.rgb.shape[1:3]))
            raise InputError(
                f"clip {clip.id}: its map is {have}, need {size[0]}x{size[1]}; draw it anew"
            )
        return {
            "rgb": wrist.rgb,
            "map": seen.rgb[at],
            "valid": seen.depth[at] > 0,
            "anchors": np.stack([cut(clip.views[a], at, *size).rgb for a in self.anchors]),
            "K": wrist.camera.K,
            "cam_from_world": wrist.camera.cam_from_world,
            "id": f"{clip.id}/{self.wrist}",
        }
