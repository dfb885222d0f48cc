"""What a camera sees of rigid bodies: pointmap, mask, depth, link and shaded colour."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from w4d_jax.kin.camera import pointmap
from w4d_jax.kin.mesh import Triangles
from w4d_jax.kin.raster import _take, rasterize_planar
from w4d_jax.types import Camera, InputError


class RobotView(NamedTuple):
    """A robot's own surface as a camera sees it, exact to the pixel centre."""

    pointmap: jax.Array  # f32[T,H,W,3] metres, each frame's camera frame; 0 off the robot
    mask: jax.Array  # bool[T,H,W]
    depth: jax.Array  # f32[T,H,W] metres along the optical axis; 0 off the robot
    link: jax.Array  # i32[T,H,W] row of robot.link_names; -1 off the robot


class SceneView(NamedTuple):
    """Rigid bodies as a camera sees them."""

    rgb: jax.Array  # u8[T,H,W,3] sRGB; black where there is nothing
    depth: jax.Array  # f32[T,H,W] metres along the optical axis; 0 = nothing
    link: jax.Array  # i32[T,H,W] row of world_from_link; -1 = nothing


class Light(NamedTuple):
    """Lambert's law under one distant lamp: linear radiance = albedo (ambient + diffuse cos)."""

    direction: tuple[float, float, float] = (0.3, 0.4, 1.0)  # world, towards the lamp
    ambient: float = 0.35
    diffuse: float = 0.65


def render_robot(robot, q, camera: Camera) -> RobotView:
    """The robot in joint positions q f32[T,J], seen by a camera fixed or moving (T poses).

    Pointmap and depth differentiate with respect to q and the camera, at fixed coverage.
    """
    frames = _frames(camera, jnp.shape(q)[0], "joints")
    cam_from_link = frames[:, None] @ robot.link_poses(q)
    depth, link, _ = _draw(robot.triangles, cam_from_link, camera)
    return RobotView(pointmap(depth, camera.K), link >= 0, depth, link)


def render_scene(triangles: Triangles, world_from_link, camera: Camera, light: Light):
    """Rigid bodies at world_from_link f32[T,L,4,4], lit by `light` -> SceneView."""
    frames = _frames(camera, world_from_link.shape[0], "world_from_link")
    depth, link, triangle = _draw(triangles, frames[:, None] @ world_from_link, camera)
    rgb = _shade(triangles, world_from_link, triangle, light)
    return SceneView(rgb, depth, link)


def _frames(camera: Camera, count: int, what: str):
    """cam_from_world f32[T,4,4] for `count` frames."""
    pose = jnp.asarray(camera.cam_from_world)
    if pose.ndim == 3 and pose.shape[0] != count:
        raise InputError(
            f"camera: {pose.shape[0]} poses, {what}: {count} frames; need one pose or {count}"
        )
    return jnp.broadcast_to(pose, (count, 4, 4))


def _draw(triangles, cam_from_link, camera):
    return _rasterize_frames(
        triangles.corners,
        triangles.link,
        cam_from_link,
        camera.K,
        camera.height,
        camera.width,
    )


@partial(jax.jit, static_argnums=(4, 5))
def _rasterize_frames(corners, link, cam_from_link, K, height, width):
    """One frame at a time: memory stays that of a frame, time is linear in frames."""
    corners = jnp.transpose(corners, (2, 1, 0))  # [3, corner, N]

    def frame(cam_from_link):
        pose = [[_take(cam_from_link[:, i, k], link) for k in range(4)] for i in range(3)]
        pose = jax.lax.optimization_barrier(pose)
        moved = [
            sum(pose[i][k] * corners[k] for k in range(3)) + pose[i][3] for i in range(3)
        ]
        depth, triangle = rasterize_planar(moved, K, height, width)
        return depth, jnp.where(triangle < 0, -1, link[triangle]), triangle

    return jax.lax.map(frame, cam_from_link)


@jax.jit
def _shade(triangles, world_from_link, triangle, light):
    """Colour each triangle, then look up the one each pixel sees; flat normals."""
    a, b, c = jnp.moveaxis(triangles.corners, 1, 0)
    normal = jnp.cross(b - a, c - a)
    normal /= jnp.maximum(jnp.linalg.norm(normal, axis=-1, keepdims=True), 1e-30)
    lamp = jnp.asarray(light.direction) / jnp.linalg.norm(jnp.asarray(light.direction))
    albedo = _linear(triangles.color)

    def frame(arguments):
        world_from_link, triangle = arguments
        lamp_in_link = jnp.einsum("lij,i->lj", world_from_link[:, :3, :3], lamp)
        cosine = jnp.sum(normal * lamp_in_link[triangles.link], -1, keepdims=True)
        radiance = albedo * (light.ambient + light.diffuse * jnp.maximum(cosine, 0.0))
        color = jnp.round(255.0 * _srgb(jnp.clip(radiance, 0.0, 1.0))).astype(jnp.uint8)
        return jnp.where(triangle[..., None] < 0, jnp.uint8(0), color[triangle])

    return jax.lax.map(frame, (world_from_link, triangle))


def _linear(srgb):
    """sRGB in [0, 1] -> linear light (IEC 61966-2-1)."""
    return jnp.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _srgb(linear):
    """Linear light in [0, 1] -> sRGB (IEC 61966-2-1)."""
    curve = 1.055 * jnp.maximum(linear, 1e-8) ** (1 / 2.4) - 0.055
    return jnp.where(linear <= 0.0031308, 12.92 * linear, curve)
