"""Kinema4D's product: a first image, a robot's motion and a camera in; a 4D video out.

A model makes so many frames at a time. A longer motion is made chunk by chunk: the last
image of one is the first of the next, and the robot, which comes from the joints and not
from the image, is as exact in the last chunk as in the first.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from w4d_jax.data.pipeline import frame, resize
from w4d_jax.data.result import Result
from w4d_jax.kin import Robot
from w4d_jax.kin.camera import to_world
from w4d_jax.kin.control import Normaliser, denormalise, normaliser
from w4d_jax.kin.render import draw_robot
from w4d_jax.sample.preview import image as to_image
from w4d_jax.types import Camera, InputError


def known_batch(
    image: np.ndarray,
    camera: Camera,
    robot: Robot,
    joints: np.ndarray,
    height: int,
    width: int,
    actions: np.ndarray | None = None,
) -> dict:
    """What a model is told of a clip, as a batch of one; nothing of it is the future.

    image u8[H,W,3] from the camera, joints f32[T,J], actions f32[T,8] of the grip
    (kin/gripper.py `grip_actions`) for a model that is told of them. Image and camera are
    cut to the model's aspect about the centre and resized, as training does; the robot is
    drawn at that size.
    """
    if image.shape != (camera.height, camera.width, 3):
        raise InputError(
            f"image of {image.shape[0]}x{image.shape[1]}: the camera has "
            f"{camera.height}x{camera.width} (height x width); give the image it belongs to"
        )
    box, small = frame(camera, height, width)
    center, scale = normaliser(robot.reach, small)
    alone = draw_robot(robot, joints, small)
    poses = np.broadcast_to(small.cam_from_world, (len(joints), 4, 4))
    return {
        "rgb": resize(image[None], box, height, width)[None],
        "robot_depth": np.asarray(alone.depth)[None],
        "robot_rgb": np.asarray(alone.rgb)[None],
        "K": np.asarray(small.K)[None],
        "cam_from_world": poses[None],
        "center": center[None],
        "scale": scale[None],
        **({} if actions is None else {"actions": actions[None]}),
    }


def rollout(
    draw: Callable,
    image: np.ndarray,
    camera: Camera,
    robot: Robot,
    joints: np.ndarray,
    size: tuple[int, int, int],
    actions: np.ndarray | None = None,
) -> Result:
    """The 4D video of a motion of any length.

    draw(batch, chunk) -> video, as a task samples it: the model, a batch of one and the
    chunk's number. image, camera and actions as in `known_batch`, joints f32[T,J], T >= 2;
    size: frames, height and width that the model makes. Within the last chunk the robot
    rests where the motion ended, and what is made of that is dropped.

    Raises InputError for a motion of one frame, a camera of other poses than the motion,
    and a robot that the first image lacks.
    """
    frames, height, width = size
    if len(joints) < 2:
        raise InputError(
            f"actions: {len(joints)} frame, need 2 or more (frame 0 is the image)"
        )
    poses = camera.cam_from_world
    if poses.ndim == 3 and len(poses) not in (1, len(joints)):
        raise InputError(
            f"camera: {len(poses)} poses for {len(joints)} frames of actions: need 1 or "
            f"{len(joints)}"
        )
    chunks = []
    for start in range(0, len(joints) - 1, frames - 1):
        rows = np.minimum(start + np.arange(frames), len(joints) - 1)
        seen = image, at(camera, start, frames), robot, joints[rows], height, width
        batch = known_batch(*seen, None if actions is None else actions[rows])
        if not chunks and not batch["robot_depth"][0, 0].any():
            raise InputError(
                "robot: no pixel of it is in the first frame; check cam_from_world (world "
                "= the robot's base, OpenCV axes) and the first joints"
            )
        (made,) = results(draw(batch, len(chunks)), batch)
        chunks.append(made)
        image, camera = made.rgb[-1], frame(camera, height, width)[1]
    return joined(chunks, len(joints))


def joined(chunks: list[Result], frames: int) -> Result:
    """One result: each chunk goes on from the last frame of the one before."""

    def whole(parts):
        rest = [part[1:] for part in parts[1:]]
        return np.concatenate([parts[0], *rest])[:frames]

    rgb, points, masks, cameras = zip(*chunks, strict=True)
    poses = whole([camera.cam_from_world for camera in cameras])
    camera = dataclasses.replace(cameras[0], cam_from_world=poses)
    return Result(whole(rgb), whole(points), whole(masks), camera)


def at(camera: Camera, start: int, frames: int) -> Camera:
    """A camera at the frames of a chunk: its last pose stays where there are no more."""
    poses = camera.cam_from_world
    if poses.ndim == 2:
        return camera
    chosen = np.minimum(start + np.arange(frames), len(poses) - 1)
    return dataclasses.replace(camera, cam_from_world=poses[chosen])


def results(video, batch) -> list[Result]:
    """What a task sampled, in metres in the world: a result for each clip of the batch."""
    made = []
    for i, rgb in enumerate(to_image(video.rgb)):
        _, height, width, _ = rgb.shape
        poses = np.asarray(batch["cam_from_world"][i])
        camera = Camera(width, height, np.asarray(batch["K"][i]), poses)
        norm = Normaliser(batch["center"][i], batch["scale"][i])
        points = to_world(denormalise(np.asarray(video.pointmap[i]), norm), poses)
        mask = np.asarray(batch["robot_depth"][i]) > 0
        made.append(Result(rgb, np.asarray(points), mask, camera))
    return made
