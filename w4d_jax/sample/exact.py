"""The wrist camera's view where kinematics say where it is: no pose is predicted.

What the anchors see of the world, without the robot, is redrawn from the wrist camera, and
the robot, whose every pose is known, is drawn into it where it is. The world is recorded or
made by a model (sample/simulate.py); a single frame of it stands still for all times.
"""

from collections.abc import Sequence

import jax
import numpy as np

from w4d_jax.data.result import Result
from w4d_jax.kin import Robot
from w4d_jax.kin.camera import pointmap, to_camera, to_world
from w4d_jax.kin.render import draw_robot
from w4d_jax.kin.se3 import invert
from w4d_jax.kin.warp import Anchors, condition_map, with_robot
from w4d_jax.types import Camera, InputError


def exact_map(
    scenes: Sequence[Result], robot: Robot, joints: np.ndarray, camera: Camera
) -> tuple[Result, np.ndarray]:
    """-> the condition map, and where it knows anything, bool[T,H,W].

    scenes: of T frames or of one, all of one size, in the frame of the robot's base. joints
    f32[T,J]; camera with T poses (kin/handeye.py).
    """
    _check(scenes, len(joints))
    views = [_without_robot(scene, len(joints)) for scene in scenes]
    anchors = Anchors(*(np.stack(arrays, 1) for arrays in zip(*views, strict=True)))
    alone = draw_robot(robot, joints, camera)
    rgb, depth, valid = jax.device_get(with_robot(condition_map(anchors, camera), alone))
    points = to_world(pointmap(depth, camera.K), camera.cam_from_world)
    drawn = np.asarray(alone.depth)
    mask = (drawn > 0) & (drawn == depth)
    return Result(rgb, np.asarray(points), mask, camera), valid


def _check(scenes: Sequence[Result], frames: int) -> None:
    sizes = [scene.rgb.shape[:3] for scene in scenes]
    for i, (length, *size) in enumerate(sizes):
        if length not in (1, frames):
            raise InputError(
                f"scene {i + 1}: {length} frames, the joints {frames}; need as many, or 1"
            )
        if size != list(sizes[0][1:]):
            raise InputError(
                "scenes of {}x{} and {}x{} pixels: need one size".format(
                    *sizes[0][1:], *size
                )
            )


def _without_robot(scene: Result, frames: int) -> Anchors:
    """One view, f[T,...], of what is not the robot."""
    poses = np.broadcast_to(scene.camera.cam_from_world, (len(scene.rgb), 4, 4))
    depth = np.asarray(to_camera(scene.pointmap, poses))[..., 2]
    # Unknown is written as the camera's own place: rounding may leave it a hair before it.
    valid = (depth > 1e-3) & ~scene.robot_mask
    eye = np.asarray(invert(poses))[:, :3, 3]
    return Anchors(
        *(
            np.broadcast_to(x, (frames, *x.shape[1:]))
            for x in (scene.pointmap, scene.rgb, valid, eye)
        )
    )
