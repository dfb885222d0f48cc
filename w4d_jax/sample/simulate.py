"""Kinema4D's product: a first image, a robot's motion and a camera in; a 4D video out."""

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
) -> dict:
    """What a model is told of a clip, as a batch of one; nothing of it is the future.

    image u8[H,W,3] from the camera, joints f32[T,J]. Image and camera are cut to the
    model's aspect about the centre and resized, as training does; the robot is drawn at
    that size.
    """
    if image.shape != (camera.height, camera.width, 3):
        raise InputError(
            f"image of {image.shape[0]}x{image.shape[1]}: the camera has "
            f"{camera.height}x{camera.width} (height x width); give the image it belongs to"
        )
    box, small = frame(camera, height, width)
    center, scale = normaliser(robot.reach, small)
    alone = draw_robot(robot, joints, small)
    depth = np.asarray(alone.depth)
    if not (depth[0] > 0).any():
        raise InputError(
            "robot: no pixel of it is in the first frame; check cam_from_world (world = "
            "the robot's base, OpenCV axes) and the first joints"
        )
    poses = np.broadcast_to(small.cam_from_world, (len(joints), 4, 4))
    return {
        "rgb": resize(image[None], box, height, width)[None],
        "robot_depth": depth[None],
        "robot_rgb": np.asarray(alone.rgb)[None],
        "K": np.asarray(small.K)[None],
        "cam_from_world": poses[None],
        "center": center[None],
        "scale": scale[None],
    }


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
