"""The wrist camera's view where a geometry model says it is: anchor videos alone.

Everything is in the frame of the first anchor's camera and in the network's unit of length.
Each frame is a moment by itself, as in WristWorld; the lens alone is one for all.
"""

from collections.abc import Callable

import jax
import numpy as np

from w4d_jax.data.pipeline import cut
from w4d_jax.data.result import Result
from w4d_jax.kin.camera import pointmap, to_camera, to_world
from w4d_jax.kin.se3 import invert
from w4d_jax.kin.warp import Anchors, condition_map
from w4d_jax.train.geometry import Scene
from w4d_jax.types import Camera, View

MOMENTS = 8  # looked at together


def described(sample: Callable, params, frozen, rgb: np.ndarray) -> Scene:
    """rgb u8[T,V,H,W,3] of the size that a geometry task's `sample` takes -> the Scene of T
    moments, on the host."""
    look, frames = jax.jit(sample), len(rgb)
    # The last part repeats the last frame, so that all are of one size.
    at = np.minimum(np.arange(frames + -frames % MOMENTS), frames - 1).reshape(-1, MOMENTS)
    parts = [jax.device_get(look(params, frozen, {"rgb": rgb[part]}, None)) for part in at]
    return jax.tree.map(lambda *x: np.concatenate(x)[:frames], *parts)


def wrist_camera(scene: Scene) -> Camera:
    """Its lens is the median of what the moments say."""
    *_, height, width, _ = scene.points.shape
    return Camera(width, height, np.median(scene.K, 0), scene.cam_from_world)


def predicted_map(
    scene: Scene, rgb: np.ndarray, camera: Camera
) -> tuple[Result, np.ndarray]:
    """rgb u8[T,V,H,W,3] of the scene's points -> the condition map, and where it knows
    anything, bool[T,H,W]."""
    known = np.ones(scene.confidence.shape, bool)
    eyes = np.asarray(invert(scene.anchors))[..., :3, 3]
    seen = condition_map(Anchors(scene.points, rgb, known, eyes), camera)
    colors, depth, valid = jax.device_get(seen)
    points = to_world(pointmap(depth, camera.K), camera.cam_from_world)
    return Result(colors, np.asarray(points), np.zeros_like(valid), camera), valid


def anchor_view(result: Result, frames: int, height: int, width: int) -> View:
    """A result as an anchor of so many frames and of this size; one frame stands still."""
    poses = np.broadcast_to(result.camera.cam_from_world, (len(result.rgb), 4, 4))
    depth = np.maximum(np.asarray(to_camera(result.pointmap, poses))[..., 2], 0)
    view = View(result.camera, result.rgb, depth, 0 * depth, 0 * result.rgb)
    return cut(view, np.minimum(np.arange(frames), len(depth) - 1), height, width)
