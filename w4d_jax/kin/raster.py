"""Triangles -> depth and triangle at pixel centres: exact coverage, z-buffer, any XLA device.

Each triangle lists the pixels of its bounding box. A chunk takes the next few thousand from
the lists laid end to end, tests each (triangle, pixel) pair and scatters the depths that pass
into the z-buffer. Time follows the summed box areas, memory the chunk and the image, whatever
the overdraw: nothing overflows, nothing is approximated.
"""

from functools import partial, reduce

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
    x, y, z = corners
    clip = K[0, 0] * x + K[0, 1] * y + K[0, 2] * z, K[1, 1] * y + K[1, 2] * z, z
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
    barycentric = jnp.stack(e) / jnp.where(total > 0, total, 1.0)
    normal = jnp.cross(hit[:, 1] - hit[:, 0], hit[:, 2] - hit[:, 0], axis=0)
    along = jnp.sum(normal * ray, 0)
    per_ray = normal / jnp.where(seen & (along < 0), along, -jnp.inf)
    point_change = jnp.sum(barycentric * of(tangents[0]), 1) - depth * ray_change
    change = jnp.sum(per_ray * point_change, 0)
    return (depth, triangle), (change, np.zeros(triangle.shape, jax.dtypes.float0))


def _scan_convert(clip, height: int, width: int, near: float):
    """Depth and triangle of corners x, y, z f32[3,N] multiplied by K."""
    count, pixels = clip[2].shape[-1], height * width
    chunk = _chunk_size(pixels)
    left, top, columns, area = _boxes(clip, height, width, near)
    slot = jnp.arange(chunk, dtype=jnp.int32)

    # The triangles that have pixels to test, in order.
    rank = _running_sum((area > 0).astype(jnp.int32), count)
    listed = jnp.zeros(count + chunk, jnp.int32)
    listed = listed.at[jnp.where(area > 0, rank - 1, count + chunk)].set(
        jnp.arange(count, dtype=jnp.int32), mode="drop"
    )

    def draw(state):
        """Tests the next `chunk` pixels: from the `first` listed triangle, `skip` pixels in."""
        first, skip, zbuffer, ids = state
        triangle = lax.dynamic_slice(listed, (first,), (chunk,))
        remaining = jnp.where(first + slot < rank[-1], _take(area, triangle), 0)
        remaining = remaining.at[0].add(-skip)
        end = _running_sum(remaining, chunk)
        start = jnp.pad(end[:-1], (1, 0))
        finished = jnp.sum((end - start == remaining) & (remaining > 0), dtype=jnp.int32)
        # Slot s tests a pixel of the last triangle whose pixels start at or before it.
        owner = jnp.zeros(chunk, jnp.int32).at[start].add(1, mode="drop")
        owner = _running_sum(owner, chunk) - 1
        step = slot - _take(start, owner) + jnp.where(owner == 0, skip, 0)
        owner = _take(triangle, owner)

        fields = *(row for plane in clip for row in plane), left, top, columns
        fields = lax.optimization_barrier(
            [step, *(_take(field, owner) for field in fields)]
        )
        step, *corners, x, y, across = fields
        row = _divide(step, across)
        x, y = x + step - row * across, y + row
        x_, y_, z_ = corners[:3], corners[3:6], corners[6:]
        e, total, hits = _edge_products((x_, y_, z_), x + 0.5, y + 0.5)
        z = (e[0] * z_[0] + e[1] * z_[1] + e[2] * z_[2]) / total
        inside = hits & (z >= near) & (slot < end[-1])
        z, pixel = lax.optimization_barrier((z, jnp.where(inside, y * width + x, pixels)))

        nearest = zbuffer.at[pixel].min(z, mode="drop")
        ids = jnp.where(nearest < zbuffer, count, ids)
        seen = z == nearest.at[pixel].get(mode="fill", fill_value=-1.0)
        ids = ids.at[jnp.where(seen, pixel, pixels)].min(owner, mode="drop")
        drawn = (end - start).at[0].add(skip)
        skip = drawn.at[finished].get(mode="fill", fill_value=0)
        return first + finished, skip, nearest, ids

    state = 0, 0, jnp.full(pixels, jnp.inf), jnp.full(pixels, count, jnp.int32)
    _, _, zbuffer, ids = lax.while_loop(lambda state: state[0] < rank[-1], draw, state)
    nothing = ids == count
    depth = jnp.where(nothing, 0.0, zbuffer).reshape(height, width)
    return depth, jnp.where(nothing, -1, ids).reshape(height, width)


def _take(values, index):
    return values.at[index].get(mode="promise_in_bounds")


def _divide(a, b):
    """a // b for i32 in [0, 2**28], quotient < 2**15: CPUs have no vector integer division."""
    quotient = (a.astype(jnp.float32) / b.astype(jnp.float32)).astype(jnp.int32)
    rest = a - quotient * b
    return quotient + (rest >= b) - (rest < 0)


def _chunk_size(pixels: int) -> int:
    """Pairs tested at once: small images waste little, large ones amortise the loop."""
    return 4096 if pixels < 1 << 16 else 32768


def _running_sum(values, limit: int):
    """min(cumsum(values), limit) of i32[n] >= 0 as two products with a triangle of ones.

    Exact while limit <= 2**18 or the whole sum < 2**24: float32 holds every such integer,
    and a block's sum is cut to the limit before blocks are summed.
    """
    blocks = jnp.pad(values, (0, -values.size % 4096)).reshape(-1, 64, 64)
    blocks = jnp.minimum(blocks, limit).astype(jnp.float32)
    upto = np.triu(np.ones((64, 64), np.float32))
    before = upto - np.eye(64, dtype=np.float32)
    low = jnp.dot(blocks, upto, precision="highest")
    last = jnp.minimum(low[..., -1], limit)
    mid = jnp.dot(last, before, precision="highest")
    high = jnp.minimum(mid[:, -1] + last[:, -1], limit).astype(jnp.int32)
    high = (jnp.cumsum(high) - high).astype(jnp.float32)
    total = low + (mid + high[:, None])[..., None]
    return jnp.minimum(total, limit).astype(jnp.int32).reshape(-1)[: values.size]


def _edge_products(clip, u, v):
    """Does the ray through (u, v) meet a front face, and where?

    With d_i = (x_i - u z_i, y_i - v z_i) the products e_k = d_j x d_i are the barycentric
    coordinates times one factor: no division, so corners beside or behind the camera need no
    clipping. Returns them (rounding below 0 removed), their sum, and whether the ray hits.
    """
    x, y, z = clip
    d = [(x[i] - u * z[i], y[i] - v * z[i]) for i in range(3)]
    products, hits = [], True
    for i, j in ((1, 2), (2, 0), (0, 1)):
        p, q = d[j][0] * d[i][1], d[i][0] * d[j][1]
        hits &= p - q >= -_TIE * (jnp.abs(p) + jnp.abs(q))
        products.append(jnp.maximum(p - q, 0.0))
    total = sum(products)
    return products, total, hits & (total > 0)


def _boxes(clip, height: int, width: int, near: float):
    """Left, top, columns, area i32[N] of the pixel centres a triangle may cover."""
    x, y, z = clip
    front = z >= near

    def bounds(us, vs, some, margin):
        """Box round the points that count: coordinates f32[N] each, `some` bool[N] each."""
        box = []
        for points, size in ((us, width), (vs, height)):
            pairs = list(zip(some, points, strict=True))
            low = reduce(jnp.minimum, [jnp.where(s, p, jnp.inf) for s, p in pairs])
            high = reduce(jnp.maximum, [jnp.where(s, p, -jnp.inf) for s, p in pairs])
            box += [jnp.ceil(low - 0.5 - margin), jnp.floor(high + 0.5 + margin)]
            box[-2:] = [jnp.clip(edge, 0, size).astype(jnp.int32) for edge in box[-2:]]
        return box

    def whole():
        u, v = x / z, y / z
        facing = (u[1] - u[0]) * (v[2] - v[0]) < (v[1] - v[0]) * (u[2] - u[0])
        return bounds(u, v, front & facing, _MARGIN)

    def cut():
        """Each edge from both its ends; an end too near moves along it to the near plane."""
        u, v, some = [], [], []
        for i, j in ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)):
            t = jnp.where(front[i], 0.0, (near - z[i]) / (z[j] - z[i]))
            depth = jnp.where(front[i], z[i], near)
            u.append((x[i] + t * (x[j] - x[i])) / depth)
            v.append((y[i] + t * (y[j] - y[i])) / depth)
            some.append(front[i] | front[j])
        return bounds(u, v, some, 1.0)

    crossing = jnp.any(jnp.any(front, 0) != jnp.all(front, 0))
    left, right, top, bottom = lax.cond(crossing, cut, whole)
    columns = jnp.maximum(right - left, 0)
    return left, top, columns, columns * jnp.maximum(bottom - top, 0)
