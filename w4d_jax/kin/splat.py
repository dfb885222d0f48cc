"""WristWorld's released renderer to the pixel: a point cloud as diamonds of 13 pixels.

Each point falls into a pixel, the nearest point of a pixel stays, and spreads over the
diamond round it, where again the nearest wins, the lower index at equal depths: one scatter
of the points and thirteen images, and what painting far to near gives.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from w4d_jax.kin.camera import project
from w4d_jax.kin.se3 import transform
from w4d_jax.types import Camera

NEAR = 0.01  # metres
RADIUS = 2


class Splats(NamedTuple):
    """Points as a camera sees them."""

    rgb: Any  # u8[T,H,W,3]; black where there is nothing
    depth: Any  # f32[T,H,W] metres; 0 where there is nothing
    index: Any  # i32[T,H,W] which point; -1 where there is nothing


@jax.jit
def released_map(points, colors, camera: Camera) -> Splats:
    """World points f32[T,N,3], colours u8 or f32[T,N,3]; the camera fixed or moving."""

    def draw(frame):
        points, colors, pose = frame
        points = transform(pose, points)
        z = points[:, 2]
        uv = project(jnp.where(z[:, None] > NEAR, points, 1.0), camera.K)
        size = jnp.array([camera.width, camera.height])
        seen = (z > NEAR) & (uv >= 0).all(-1) & (uv < size).all(-1)
        index = _spread(*_nearest(uv, jnp.where(seen, z, jnp.inf), camera))
        nothing = jnp.zeros((1, 3), jnp.uint8)
        return Splats(
            jnp.concatenate([released_bytes(colors, seen), nothing])[index],
            jnp.concatenate([z, jnp.zeros(1)])[index],
            jnp.where(index < len(z), index, -1),
        )

    poses = jnp.broadcast_to(camera.cam_from_world, (len(points), 4, 4))
    return lax.map(draw, (points, colors, poses))


def released_bytes(colors, seen):
    """Colours [N,3] -> u8: where none of what is seen reaches 2, of whatever type they are,
    all are taken for shares of 255; cut to whole numbers."""
    top = jnp.max(jnp.where(seen[:, None], colors, 0), initial=0)
    return (colors.astype(jnp.float32) * jnp.where(top < 2, 255, 1)).astype(jnp.uint8)


def _nearest(uv, z, camera: Camera):
    """The nearest of the points in each pixel: depth f32[H,W] and index i32[H,W]; infinity
    and N where there is none."""
    N, pixels = len(z), camera.height * camera.width
    column, row = uv.astype(jnp.int32).T
    pixel = jnp.where(z < jnp.inf, row * camera.width + column, pixels)
    depth = jnp.full(pixels + 1, jnp.inf).at[pixel].min(z)
    first = jnp.where(z == depth[pixel], pixel, pixels)
    index = jnp.full(pixels + 1, N, jnp.int32).at[first].min(jnp.arange(N, dtype=jnp.int32))
    return (x[:-1].reshape(camera.height, camera.width) for x in (depth, index))


def _spread(depth, index):
    """The index of the nearest point whose diamond covers each pixel, i32[H,W]."""
    H, W = depth.shape
    none = jnp.iinfo(jnp.int32).max
    wide = jnp.pad(depth, RADIUS, constant_values=jnp.inf)
    owners = jnp.pad(index, RADIUS, constant_values=none)
    best = jnp.full((H, W), jnp.inf), jnp.full((H, W), none)
    for y in range(2 * RADIUS + 1):
        side = RADIUS - abs(y - RADIUS)
        for x in range(RADIUS - side, RADIUS + side + 1):
            z, owner = (a[y : y + H, x : x + W] for a in (wide, owners))
            wins = (z < best[0]) | ((z == best[0]) & (owner < best[1]))
            best = jnp.where(wins, z, best[0]), jnp.where(wins, owner, best[1])
    return best[1]
