"""Anchor views as another camera sees them: their surfaces, redrawn exactly.

The pixels of a pointmap are the corners of a net of triangles, and the net is what a camera
draws. A pixel so covers just the patch of surface that it stands for: near surfaces have no
holes, far ones no blobs, depths and colours between the pixels are linear on the surface,
and its back, of which nothing is known, is not shown. Where a triangle is seen too flatly
from its own anchor it does not lie on a surface: it joins two, at the edge of the nearer
one, and is left out. (That needs the anchor's place but no unit and no number of metres.)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from w4d_jax.kin.camera import pixel_rays
from w4d_jax.kin.raster import rasterize
from w4d_jax.kin.render import SceneView
from w4d_jax.kin.se3 import transform
from w4d_jax.types import Camera

FLATTEST = 0.15  # cosine of the angle of sight and normal


class Anchors(NamedTuple):
    """V views of each of T frames; H W pixels."""

    points: Any  # f32[T,V,H,W,3] metres in the world
    rgb: Any  # u8[T,V,H,W,3]
    valid: Any  # bool[T,V,H,W] which points to believe
    eye: Any  # f32[T,V,3] where each camera stands in the world


class Warped(NamedTuple):
    """What a camera sees of the anchors."""

    rgb: Any  # u8[T,H,W,3]; black where nothing is known
    depth: Any  # f32[T,H,W] metres; 0 where nothing is known
    mask: Any  # bool[T,H,W] where something is


def trusted(confidence, share: float):
    """The `share` of each frame's pixels with the most confidence: f[T,V,H,W] -> bool."""
    return confidence >= jnp.quantile(confidence, 1 - share, (1, 2, 3), keepdims=True)


@jax.jit
def condition_map(anchors: Anchors, camera: Camera) -> Warped:
    """The anchors from a camera that is fixed or has a pose for each frame."""
    T, V, H, W, _ = anchors.points.shape
    net = _net(V, H, W)

    def draw(frame):
        (points, rgb, valid, eye), pose = frame
        corners = transform(pose, points.reshape(-1, 3))[net]
        sight = corners[:, 0] - transform(pose, eye)[net[:, 0] // (H * W)]
        normal = _normal(corners)
        length = jnp.linalg.norm(normal, axis=-1) * jnp.linalg.norm(sight, axis=-1)
        steep = -_dot(normal, sight) > FLATTEST * length
        kept = valid.reshape(-1)[net].all(-1) & steep
        # What is not kept is moved behind the camera.
        corners = jnp.where(kept[:, None, None], corners, -1.0)
        depth, triangle = rasterize(corners, camera.K, camera.height, camera.width)
        rays = pixel_rays(camera.K, camera.height, camera.width)
        share = _barycentric(depth[..., None] * rays, corners[triangle])
        colors = rgb.reshape(-1, 3)[jnp.asarray(net)[triangle]].astype(jnp.float32)
        seen = triangle >= 0
        color = jnp.round(jnp.einsum("hwk,hwkc->hwc", share, colors, precision="highest"))
        return Warped(jnp.where(seen[..., None], color, 0).astype(jnp.uint8), depth, seen)

    poses = jnp.broadcast_to(camera.cam_from_world, (T, 4, 4))
    return lax.map(draw, (anchors, poses))


def with_robot(warped: Warped, robot: SceneView) -> Warped:
    """The robot drawn where it is before everything that is known."""
    before = (robot.depth > 0) & ((robot.depth < warped.depth) | ~warped.mask)
    return Warped(
        jnp.where(before[..., None], robot.rgb, warped.rgb),
        jnp.where(before, robot.depth, warped.depth),
        warped.mask | before,
    )


def _net(views: int, height: int, width: int) -> np.ndarray:
    """Two triangles for each four pixels, i32[N,3], counter-clockwise as the anchor sees
    them."""
    pixel = np.arange(views * height * width, dtype=np.int32).reshape(views, height, width)
    a, b = pixel[:, :-1, :-1], pixel[:, :-1, 1:]
    c, d = pixel[:, 1:, :-1], pixel[:, 1:, 1:]
    triangles = [(a, c, b), (b, c, d)]
    return np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in triangles])


def _normal(corners):
    a, b, c = jnp.moveaxis(corners, -2, 0)
    return jnp.cross(b - a, c - a)


def _barycentric(point, corners):
    """Shares f[...,3] of corners f[...,3,3] in a point f[...,3] of their plane."""
    a, b, c = jnp.moveaxis(corners, -2, 0)
    normal = _normal(corners)
    square = jnp.maximum(_dot(normal, normal), 1e-30)
    first = _dot(normal, jnp.cross(c - b, point - b)) / square
    second = _dot(normal, jnp.cross(a - c, point - c)) / square
    share = jnp.clip(jnp.stack([first, second, 1 - first - second], -1), 0, 1)
    return share / jnp.maximum(share.sum(-1, keepdims=True), 1e-9)


def _dot(a, b):
    return jnp.sum(a * b, -1)
