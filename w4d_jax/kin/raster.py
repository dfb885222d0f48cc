"""Triangles -> depth and triangle id at pixel centres: exact coverage, z-buffer, any XLA device.

Each triangle lists the pixels of its bounding box; a chunk takes as many as it holds from
the lists laid end to end, tests each (triangle, pixel) pair and scatters the depths that pass
into the z-buffer. Chunks follow until the lists are empty. Time follows the summed box areas,
memory the chunk's size, whatever the overdraw: nothing overflows, nothing is approximated.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from w4d_jax.kin.camera import pixel_rays

# Pixels added round a triangle's box, so that rounding of u = x / z never loses a pixel
# that the edge test would accept.
_MARGIN = 1e-3
# Rounding of the edge test relative to its two products: a pixel centre on an edge that two
# triangles share belongs to both, and the surface has no holes.
_TIE = 3e-7


def rasterize(corners, K, height: int, width: int, near: float = 0.01):
    """The nearest front face at each pixel centre.

    corners f32[N,3,3]: camera frame, metres, counter-clockwise seen from outside; K f32[3,3].
    Returns depth f32[H,W] (metres along the optical axis, 0 = nothing) and triangle i32[H,W]
    (-1 = nothing; of equal depths the lowest index). Surface nearer than `near` is cut away.
    Depth differentiates with respect to corners and K at fixed coverage.
    """
    return rasterize_planar(jnp.transpose(corners, (2, 1, 0)), K, height, width, near)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def rasterize_planar(corners, K, height: int, width: int, near: float = 0.01):
    """`rasterize` for corners f32[3,3,N] (coordinate, corner, triangle): the fast layout."""
    clip = jnp.einsum("ij,jcn->icn", K, corners, precision="highest")
    return _scan_convert(clip, height, width, near)


@rasterize_planar.defjvp
def _rasterize_jvp(height, width, near, primals, tangents):
    """The hit stays on its ray z r, and on its triangle's plane at sum b_k c_k:
    dz = n . (sum b_k dc_k - z dr) / (n . r)."""
    corners, K = primals
    depth, triangle = rasterize_planar(corners, K, height, width, near)
    seen = triangle >= 0

    def of(values):
        return values.at[..., jnp.maximum(triangle, 0)].get(mode="promise_in_bounds")

    def rays(K):
        return jnp.moveaxis(pixel_rays(K, height, width), -1, 0)

    ray, ray_change = jax.jvp(rays, (K,), (tangents[1],))
    hit = of(corners)  # f32[3,3,H,W]
    e, total, _ = _edge_products(hit, ray[0], ray[1])
    barycentric = e / jnp.where(total > 0, total, 1.0)
    normal = jnp.cross(hit[:, 1] - hit[:, 0], hit[:, 2] - hit[:, 0], axis=0)
    along = jnp.sum(normal * ray, 0)
    per_ray = normal / jnp.where(seen & (along < 0), along, -jnp.inf)
    point_change = jnp.sum(barycentric * of(tangents[0]), 1) - depth * ray_change
    change = jnp.sum(per_ray * point_change, 0)
    return (depth, triangle), (change, np.zeros(triangle.shape, jax.dtypes.float0))


def _scan_convert(clip, height: int, width: int, near: float):
    """`rasterize` of corners multiplied by K: clip f32[3,3,N] (coordinate, corner, triangle)."""
    count, pixels = clip.shape[-1], height * width
    left, top, columns, area = _boxes(clip, height, width, near)
    chunk = _chunk_size(count, pixels)
    index = jnp.arange(count, dtype=jnp.int32)
    slots = jnp.arange(chunk, dtype=jnp.int32)

    def draw(state):
        _, drawn, zbuffer, ids = state
        # A sum that saturates at the chunk's size is associative and cannot overflow.
        end = lax.associative_scan(lambda a, b: jnp.minimum(a + b, chunk), area - drawn)
        start = jnp.pad(end[:-1], (1, 0))
        # Whose pixel is slot s? Mark where each list starts, carry the marks forwards.
        marks = jnp.where(end > start, start, chunk)
        owner = jnp.zeros(chunk, jnp.int32).at[marks].set(index, mode="drop")
        owner = lax.associative_scan(jnp.maximum, owner)

        def of(values):
            return values.at[..., owner].get(mode="promise_in_bounds")

        step, across = slots + of(drawn - start), of(columns)
        row = step // jnp.maximum(across, 1)
        x, y = of(left) + step - row * across, of(top) + row
        triangle = of(clip)
        e, total, hits = _edge_products(triangle, x + 0.5, y + 0.5)
        z = jnp.sum(e * triangle[2], 0) / total
        inside = hits & (z >= near) & (slots < end[-1])
        pixel = jnp.where(inside, y * width + x, pixels)

        nearest = zbuffer.at[pixel].min(z, mode="drop")
        ids = jnp.where(nearest < zbuffer, count, ids)
        seen = inside & (z == nearest.at[pixel].get(mode="clip"))
        ids = ids.at[jnp.where(seen, pixel, pixels)].min(owner, mode="drop")
        return end[-1] == chunk, drawn + end - start, nearest, ids

    zbuffer, ids = jnp.full(pixels, jnp.inf), jnp.full(pixels, count, jnp.int32)
    state = jnp.any(area > 0), jnp.zeros_like(area), zbuffer, ids
    _, _, zbuffer, ids = lax.while_loop(lambda state: state[0], draw, state)
    nothing = ids == count
    depth = jnp.where(nothing, 0.0, zbuffer).reshape(height, width)
    return depth, jnp.where(nothing, -1, ids).reshape(height, width)


def _chunk_size(count: int, pixels: int) -> int:
    return min(max(count, pixels // 2, 4096), 1 << 18)


def _edge_products(clip, u, v):
    """Does the ray through (u, v) meet a front face, and where?

    With d_i = (x_i - u z_i, y_i - v z_i) the products e_k = d_j x d_i are the barycentric
    coordinates times one factor: no division, so corners beside or behind the camera need no
    clipping. Returns them (rounding below 0 removed), their sum, and whether the ray hits.
    """
    x, y, z = clip
    x, y = x - u * z, y - v * z
    i, j = np.array([1, 2, 0]), np.array([2, 0, 1])
    p, q = x[j] * y[i], x[i] * y[j]
    e = jnp.maximum(p - q, 0.0)
    total = jnp.sum(e, 0)
    hits = jnp.all(p - q >= -_TIE * (jnp.abs(p) + jnp.abs(q)), 0) & (total > 0)
    return e, total, hits


def _boxes(clip, height: int, width: int, near: float):
    """Left, top, columns, area i32[N]: the pixel centres a triangle may cover; area 0 = none."""
    x, y, z = clip
    front = z >= near

    def bounds(u, v, some, margin):
        low, high = jnp.where(some, 0.0, jnp.inf), jnp.where(some, 0.0, -jnp.inf)
        box = []
        for w, size in ((u, width), (v, height)):
            first = jnp.ceil(jnp.min(w + low, 0) - 0.5 - margin)
            last = jnp.floor(jnp.max(w + high, 0) - 0.5 + margin)
            box += [jnp.clip(first, 0, size), jnp.clip(last + 1, 0, size)]
        return jnp.stack(box).astype(jnp.int32)

    def whole():
        u, v = x / z, y / z
        facing = (u[1] - u[0]) * (v[2] - v[0]) < (v[1] - v[0]) * (u[2] - u[0])
        return bounds(u, v, front & facing, _MARGIN)

    def cut():
        """Ends of the edges; one that lies before the near plane moves along its edge to it."""
        u, v, some = [], [], []
        for i, j in ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)):
            t = (near - z[i]) / jnp.where(front[i] == front[j], 1.0, z[j] - z[i])
            t = jnp.where(front[i], 0.0, t)
            depth = jnp.where(front[i], z[i], near)
            u.append((x[i] + t * (x[j] - x[i])) / depth)
            v.append((y[i] + t * (y[j] - y[i])) / depth)
            some.append(front[i] | front[j])
        return bounds(jnp.stack(u), jnp.stack(v), jnp.stack(some), 1.0)

    crossing = jnp.any(jnp.any(front, 0) != jnp.all(front, 0))
    left, right, top, bottom = lax.cond(crossing, cut, whole)
    columns = jnp.maximum(right - left, 0)
    return left, top, columns, columns * jnp.maximum(bottom - top, 0)
