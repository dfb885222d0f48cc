"""From an episode's motion to what its cameras saw, by the project's own renderer.

Whatever the episode, the arrays have one shape (three blocks, of which the missing ones are
points), so that everything here compiles once.
"""

import colorsys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.data.sim.world import Blocks
from w4d_jax.kin import se3
from w4d_jax.kin.mesh import Triangles, box
from w4d_jax.kin.render import Light, draw_robot, render_scene
from w4d_jax.types import Camera, View

BLOCKS = 3  # at most
HUES = {
    "red": 0.0,
    "orange": 0.075,
    "yellow": 0.15,
    "green": 0.33,
    "cyan": 0.5,
    "blue": 0.62,
    "purple": 0.76,
    "pink": 0.88,
}
ROOM = np.array([[-1.2, -1.6, 0.0], [2.0, 1.6, 2.2]])  # its floor is the table
# Where the fixed cameras stand and look, and how far either may be off (metres); half the
# vertical field of view is FIELD of a metre at the point looked at.
STANDS = {
    "front": ((1.30, 0.0, 0.62), (0.51, 0.0, 0.10)),
    "side": ((0.52, 0.88, 0.52), (0.51, 0.0, 0.10)),
}
JITTER, FIELD = 0.04, 0.31
WRIST_FIELD = 0.85  # tangent of half the wrist camera's field of view


class Look(NamedTuple):
    """How an episode's world looks: sRGB in [0, 1], `names` those of the blocks' hues."""

    names: list[str]
    blocks: np.ndarray  # f64[O,3]
    arm: np.ndarray  # f64[3], multiplies the arm's own colours
    table: np.ndarray  # f64[3]
    wall: np.ndarray  # f64[3]
    light: Light


def sample_look(rng, count: int) -> Look:
    """Blocks of `count` different saturated hues in a world of faint ones."""
    names = [str(name) for name in rng.choice(list(HUES), count, replace=False)]
    blocks = [
        colorsys.hsv_to_rgb(
            (HUES[name] + rng.uniform(-0.015, 0.015)) % 1,
            rng.uniform(0.75, 0.95),
            rng.uniform(0.8, 1.0),
        )
        for name in names
    ]
    azimuth, height = rng.uniform(-np.pi, np.pi), rng.uniform(1.0, 2.5)
    ambient = rng.uniform(0.35, 0.5)
    return Look(
        names=names,
        blocks=np.array(blocks),
        arm=rng.uniform(0.92, 1.0) * rng.uniform(0.97, 1.0, 3),
        table=_faint(rng, 0.35, 0.75),
        wall=_faint(rng, 0.45, 0.9),
        light=Light((np.cos(azimuth), np.sin(azimuth), height), ambient, 1.05 - ambient),
    )


def sample_cameras(rng, height: int, width: int) -> dict[str, Camera]:
    """The fixed cameras by name, each a little off its stand."""
    cameras = {}
    for name, (eye, target) in STANDS.items():
        eye = np.add(eye, rng.uniform(-JITTER, JITTER, 3))
        target = np.add(target, rng.uniform(-JITTER, JITTER, 3) / 2)
        field = FIELD * rng.uniform(0.95, 1.05) / np.linalg.norm(target - eye)
        cameras[name] = Camera(
            width, height, _intrinsics(field, height, width), _look_at(eye, target)
        )
    return cameras


def wrist_camera(cam_from_world, height: int, width: int) -> Camera:
    """The moving camera at poses f32[T,4,4]."""
    return Camera(width, height, _intrinsics(WRIST_FIELD, height, width), cam_from_world)


def scene(robot, blocks: Blocks, look: Look) -> Triangles:
    """The robot's triangles, the room's (link L) and the blocks' (links L + 1 ...)."""
    count = len(robot.link_names)
    cube = box([2.0, 2.0, 2.0]).corners
    half = np.zeros((BLOCKS, 3))
    half[: len(blocks.half)] = blocks.half
    color = np.zeros((BLOCKS, 3))
    color[: len(look.blocks)] = look.blocks
    # Corners in the opposite order: the room is seen from inside.
    room = ROOM.mean(0) + cube[:, ::-1] * np.ptp(ROOM, axis=0) / 2
    is_table = (room[..., 2] == 0).all(-1)
    parts = [
        (robot.triangles.corners, robot.triangles.link, robot.triangles.color * look.arm),
        (room, np.full(12, count), np.where(is_table[:, None], look.table, look.wall)),
        *(
            (cube * half[i], np.full(12, count + 1 + i), np.tile(color[i], (12, 1)))
            for i in range(BLOCKS)
        ),
    ]
    corners, link, color = (np.concatenate(x) for x in zip(*parts, strict=True))
    return Triangles(
        corners.astype(np.float32), link.astype(np.int32), color.astype(np.float32)
    )


def shoot(
    robot, triangles: Triangles, joints, objects, camera: Camera, light: Light
) -> View:
    """joints f32[T,J], objects f32[T,O,7] -> what the camera sees of it all."""
    frames = len(joints)
    poses = np.zeros((frames, BLOCKS, 7), np.float32)
    poses[..., 3] = 1.0
    poses[:, : objects.shape[1]] = objects
    moving = Camera(
        camera.width,
        camera.height,
        camera.K,
        np.broadcast_to(camera.cam_from_world, (frames, 4, 4)),
    )
    seen = jax.device_get(_shoot(robot, triangles, joints, poses, moving, light))
    return View(camera, *seen)


@partial(jax.jit, static_argnums=0)
def _shoot(robot, triangles, joints, objects, camera, light):
    """The arrays of a View, in its order."""
    room = jnp.broadcast_to(jnp.eye(4), (joints.shape[0], 1, 4, 4))
    poses = [robot.link_poses(joints), room, se3.pose_from_xyz_quat(objects)]
    world = render_scene(triangles, jnp.concatenate(poses, 1), camera, light)
    alone = draw_robot(robot, joints, camera)
    return world.rgb, world.depth, alone.depth, alone.rgb


def _faint(rng, low: float, high: float) -> np.ndarray:
    """A colour without much of one, of value within bounds."""
    return np.array(
        colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.25), rng.uniform(low, high))
    )


def _intrinsics(field: float, height: int, width: int) -> np.ndarray:
    """`field`: the tangent of half the field of view along the shorter side."""
    focal = min(height, width) / 2 / field
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], np.float32)


def _look_at(eye, target) -> np.ndarray:
    """cam_from_world f32[4,4] of an upright camera."""
    z = (target - eye) / np.linalg.norm(target - eye)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    return np.block([[R, -(R @ eye)[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]).astype(
        np.float32
    )
