"""What a camera sees of rigid bodies: pointmap, mask, depth, link and shaded colour."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from w4d_jax.kin.camera import pointmap
from w4d_jax.kin.mesh import Triangles
from w4d_jax.kin.raster import rasterize_planes
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
    """A distant lamp and Lambert's law in linear light: albedo (ambient + diffuse cos)."""

    direction: tuple[float, float, float] = (0.3, 0.4, 1.0)  # world, towards the lamp
    ambient: float = 0.35
    diffuse: float = 0.65


DAYLIGHT = Light()


def render_robot(robot, q, camera: Camera) -> RobotView:
    """The robot in joint positions q f32[T,J], seen by a camera fixed or moving (T poses).

    Pointmap and depth differentiate with respect to q and the camera, at fixed coverage.
    """
    camera = _moving(camera, jnp.shape(q)[0], "joints")
    return _robot_view(robot.triangles, robot.link_poses(q), camera)


def render_scene(triangles: Triangles, world_from_link, camera: Camera, light: Light):
    """Rigid bodies at world_from_link f32[T,L,4,4], lit by `light` -> SceneView."""
    camera = _moving(camera, world_from_link.shape[0], "world_from_link")
    return _scene_view(triangles, world_from_link, camera, light)


def draw_robot(robot, q, camera: Camera, light: Light = DAYLIGHT) -> SceneView:
    """The robot alone in joint positions q f32[T,J], shaded: render_scene of its links."""
    return render_scene(robot.triangles, robot.link_poses(q), camera, light)


def _moving(camera: Camera, count: int, what: str) -> Camera:
    """The camera with a pose for each of `count` frames."""
    pose = jnp.asarray(camera.cam_from_world)
    if pose.ndim == 3 and pose.shape[0] != count:
        raise InputError(
            f"camera: {pose.shape[0]} poses for {count} frames of {what}: need 1 or {count}"
        )
    poses = jnp.broadcast_to(pose, (count, 4, 4))
    return Camera(camera.width, camera.height, jnp.asarray(camera.K), poses)


@jax.jit
def _robot_view(triangles, world_from_link, camera):
    def frame(poses):
        depth, link, _ = draw(*poses)
        return RobotView(pointmap(depth, camera.K), link >= 0, depth, link)

    draw = _drawer(triangles, camera)
    return jax.lax.map(frame, (world_from_link, camera.cam_from_world))


@jax.jit
def _scene_view(triangles, world_from_link, camera, light):
    def frame(poses):
        depth, link, triangle = draw(*poses)
        color = shade(poses[0])
        rgb = jnp.where(triangle[..., None] < 0, jnp.uint8(0), color[triangle])
        return SceneView(rgb, depth, link)

    draw, shade = _drawer(triangles, camera), _shader(triangles, light)
    return jax.lax.map(frame, (world_from_link, camera.cam_from_world))


def _drawer(triangles: Triangles, camera: Camera):
    """Poses of links and camera -> depth f32[H,W], link i32[H,W], triangle i32[H,W].

    Frames are drawn one at a time: memory stays a frame's, time is linear in frames.
    """
    if triangles.link.shape[0] == 0:
        raise InputError("triangles: 0, so there is nothing to draw; need visual meshes")
    owner = jnp.asarray(triangles.link)
    # [3, corner, N], laid out so once and not in every frame.
    x, y, z = jax.lax.optimization_barrier(jnp.transpose(triangles.corners, (2, 1, 0)))

    def draw(world_from_link, cam_from_world):
        cam_from_link = jnp.matmul(cam_from_world, world_from_link, precision="highest")

        def entry(i, k):
            return cam_from_link[:, i, k].at[owner].get(mode="promise_in_bounds")

        rows = [[entry(i, k) for k in range(4)] for i in range(3)]
        rows = jax.lax.optimization_barrier(rows)  # gathered once, used for each corner
        corners = tuple(a * x + b * y + c * z + d for a, b, c, d in rows)
        depth, triangle = rasterize_planes(corners, camera.K, camera.height, camera.width)
        return depth, jnp.where(triangle < 0, -1, owner[triangle]), triangle

    return draw


def _shader(triangles: Triangles, light: Light):
    """world_from_link f32[L,4,4] -> sRGB u8[N,3] of each triangle under the light, flat."""
    a, b, c = jnp.moveaxis(triangles.corners, 1, 0)
    normal = jnp.cross(b - a, c - a)
    normal /= jnp.maximum(jnp.linalg.norm(normal, axis=-1, keepdims=True), 1e-30)
    lamp = jnp.asarray(light.direction) / jnp.linalg.norm(jnp.asarray(light.direction))
    albedo = _linear(triangles.color)

    def shade(world_from_link):
        lamp_in_link = lamp @ world_from_link[:, :3, :3]
        cosine = jnp.sum(normal * lamp_in_link[triangles.link], -1, keepdims=True)
        radiance = albedo * (light.ambient + light.diffuse * jnp.maximum(cosine, 0.0))
        return jnp.round(255.0 * _srgb(jnp.clip(radiance, 0.0, 1.0))).astype(jnp.uint8)

    return shade


def _linear(srgb):
    """sRGB in [0, 1] -> linear light (IEC 61966-2-1)."""
    return jnp.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _srgb(linear):
    """Linear light in [0, 1] -> sRGB (IEC 61966-2-1)."""
    curve = 1.055 * jnp.maximum(linear, 1e-8) ** (1 / 2.4) - 0.055
    return jnp.where(linear <= 0.0031308, 12.92 * linear, curve)
