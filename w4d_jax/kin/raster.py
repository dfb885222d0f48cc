"""Triangles -> depth and triangle at pixel centres: exact coverage, z-buffer, in XLA.

Each triangle lists the rows of its bounding box, each row the span of pixels between the
triangle's edges; chunks take the next few thousand rows, then pixels, from the lists laid
end to end. Each (triangle, pixel) pair is tested, and the depths that pass are scattered
into the z-buffer. Time follows rows and covered pixels, memory the chunk and the image,
whatever the overdraw: nothing overflows, nothing is approximated.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from w4d_jax.kin.camera import pixel_rays

# Pixels added round a triangle's box and a row's span, so that rounding never loses one
# that the edge test accepts; at the near plane x / z magnifies it.
_MARGIN, _MARGIN_OF_SPAN, _MARGIN_AT_NEAR = 1e-3, 1e-2, 1.0
# Rounding of the edge test relative to its two products: a pixel centre on an edge that two
# triangles share belongs to both, and the surface has no holes.
_TIE = 3e-7


def rasterize(corners, K, height: int, width: int, near: float = 0.01):
    """The nearest front face at each pixel centre.

    corners f32[N,3,3]: camera frame, metres, counter-clockwise from outside. K f32[3,3].
    Returns depth f32[H,W] (metres along the optical axis, 0 = nothing) and triangle
    i32[H,W] (-1 = nothing; of equal depths the highest index). What is nearer than `near`
    is cut away. Depth differentiates with respect to corners and K at fixed coverage.
    """
    x, y, z = jnp.transpose(corners, (2, 1, 0))
    return rasterize_planes((x, y, z), K, height, width, near)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def rasterize_planes(corners, K, height: int, width: int, near: float = 0.01):
    """`rasterize` of corners (x, y, z), f32[3,N] each: the fast layout."""
    x, y, z = corners
    clip = K[0, 0] * x + K[0, 1] * y + K[0, 2] * z, K[1, 1] * y + K[1, 2] * z, z
    return _scan_convert(clip, height, width, near)


@rasterize_planes.defjvp
def _rasterize_jvp(height, width, near, primals, tangents):
    """The point seen stays on its ray, z r, and on its triangle, sum b_k c_k:
    dz = n . (sum b_k dc_k - z dr) / (n . r)."""
    corners, K = primals
    depth, triangle = rasterize_planes(corners, K, height, width, near)

    def seen(planes):
        """[coordinate][corner] f32[H,W] of the triangle at each pixel."""
        return [[_take(row, triangle.clip(0)) for row in plane] for plane in planes]

    def rays(K):
        r = pixel_rays(K, height, width)
        return r[..., 0], r[..., 1], r[..., 2]

    r, dr = jax.jvp(rays, (K,), (tangents[1],))
    c, dc = seen(corners), seen(tangents[0])
    e, total, _ = _edge_products(c, r[0], r[1])
    total = jnp.where(total > 0, total, 1.0)
    p, q = ([c[i][k] - c[i][0] for i in range(3)] for k in (1, 2))
    n = [p[i - 2] * q[i - 1] - p[i - 1] * q[i - 2] for i in range(3)]
    along = n[0] * r[0] + n[1] * r[1] + n[2] * r[2]
    dz = 0.0
    for i in range(3):
        dp = (e[0] * dc[i][0] + e[1] * dc[i][1] + e[2] * dc[i][2]) / total
        dz += n[i] * (dp - depth * dr[i])
    dz /= jnp.where((triangle >= 0) & (along < 0), along, -jnp.inf)
    return (depth, triangle), (dz, np.zeros(triangle.shape, jax.dtypes.float0))


def _scan_convert(clip, height: int, width: int, near: float):
    """Depth and triangle of corners x, y, z f32[3,N] multiplied by K."""
    count, pixels = clip[2].shape[-1], height * width
    # Small images waste little of the last chunk, large ones amortise the loop.
    chunk = 4096 if pixels < 1 << 16 else 32768
    slot = jnp.arange(chunk, dtype=jnp.int32)
    left, top, columns, rows = _boxes(clip, height, width, near)
    corners = [row for plane in clip for row in plane]

    # The triangles that have rows, in order.
    rank = _running_sum((rows > 0).astype(jnp.int32), count)
    place = jnp.where(rows > 0, rank - 1, count + chunk)
    index = jnp.arange(count, dtype=jnp.int32)
    listed = jnp.zeros(count + chunk, jnp.int32).at[place].set(index, mode="drop")

    def draw_rows(state):
        """The next rows: from the `first` listed triangle on, `skip` of its rows in."""
        first, skip, zbuffer, ids = state
        triangle = lax.dynamic_slice(listed, (first,), (chunk,))
        waiting = jnp.where(first + slot < rank[-1], _take(rows, triangle), 0)
        waiting = waiting.at[0].add(-skip)
        owner, y, live, taken = _deal(waiting, chunk)
        y += jnp.where(owner == 0, skip, 0)
        owner = _take(triangle, owner)
        y, x, across, *c = _gather(owner, y + _take(top, owner), left, columns, *corners)
        begin, end = _span((c[:3], c[3:6], c[6:]), x, y, across)
        spans = owner, y, x + begin, jnp.where(live, end - begin, 0)
        zbuffer, ids = _draw_spans(spans, corners, near, width, zbuffer, ids)
        finished = jnp.sum((taken == waiting) & (waiting > 0), dtype=jnp.int32)
        skip = taken.at[0].add(skip).at[finished].get(mode="fill", fill_value=0)
        return first + finished, skip, zbuffer, ids

    state = 0, 0, jnp.full(pixels, jnp.inf), jnp.full(pixels, -1, jnp.int32)
    _, _, zbuffer, ids = lax.while_loop(lambda state: state[0] < rank[-1], draw_rows, state)
    depth = jnp.where(ids < 0, 0.0, zbuffer)
    return depth.reshape(height, width), ids.reshape(height, width)


def _draw_spans(spans, corners, near, width, zbuffer, ids):
    """Tests the pixels of spans (triangle, y, x, length i32[n]), n at a time."""
    triangle, y, x, length = spans
    chunk = length.size

    def draw(state):
        drawn, zbuffer, ids = state
        span, step, live, taken = _deal(length - drawn, chunk)
        step, owner, v, u = _gather(span, step, triangle, y, x + drawn)
        u, *c = _gather(owner, u + step, *corners)
        e, total, hits = _edge_products((c[:3], c[3:6], c[6:]), u + 0.5, v + 0.5)
        z = (e[0] * c[6] + e[1] * c[7] + e[2] * c[8]) / total
        hits &= live & (z >= near)
        z, pixel = lax.optimization_barrier((z, jnp.where(hits, v * width + u, ids.size)))
        zbuffer = zbuffer.at[pixel].min(z, mode="drop")
        nearest = z == zbuffer.at[pixel].get(mode="clip")
        # Triangles come in order, so the largest index is the one that drew last.
        ids = ids.at[jnp.where(nearest, pixel, ids.size)].max(owner, mode="drop")
        return drawn + taken, zbuffer, ids

    state = jnp.zeros_like(length), zbuffer, ids
    return lax.while_loop(lambda state: jnp.any(state[0] < length), draw, state)[1:]


def _boxes(clip, height: int, width: int, near: float):
    """Left, top, columns, rows i32[N] of the pixel centres that a front face may cover."""
    x, y, z = clip
    front = z >= near
    ax, ay, az, bx, by, bz = (p[i] - p[0] for i in (1, 2) for p in (x, y, z))
    volume = x[0] * (ay * bz - az * by) + y[0] * (az * bx - ax * bz)
    facing = volume + z[0] * (ax * by - ay * bx) < 0

    def bounds(us, vs, counts, margin):
        """First and last + 1 pixel, across then down, round those points that count."""
        edges = []
        for points, size in ((us, width), (vs, height)):
            pairs = list(zip(counts, points, strict=True))
            low = reduce(jnp.minimum, [jnp.where(c, p, jnp.inf) for c, p in pairs])
            high = reduce(jnp.maximum, [jnp.where(c, p, -jnp.inf) for c, p in pairs])
            edges += [jnp.clip(jnp.ceil(low - 0.5 - margin), 0, size)]
            edges += [jnp.clip(jnp.floor(high + 0.5 + margin), 0, size)]
        return [edge.astype(jnp.int32) for edge in edges]

    def whole():
        return bounds(x / z, y / z, front & facing, _MARGIN)

    def cut():
        """Each edge from both ends; an end too near moves along it to the near plane."""
        us, vs, counts = [], [], []
        for i, j in ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)):
            t = jnp.where(front[i], 0.0, (near - z[i]) / (z[j] - z[i]))
            depth = jnp.where(front[i], z[i], near)
            us.append((x[i] + t * (x[j] - x[i])) / depth)
            vs.append((y[i] + t * (y[j] - y[i])) / depth)
            counts.append((front[i] | front[j]) & facing)
        return bounds(us, vs, counts, _MARGIN_AT_NEAR)

    crossing = jnp.any(jnp.any(front, 0) != jnp.all(front, 0))
    left, right, top, bottom = lax.cond(crossing, cut, whole)
    columns, rows = jnp.maximum(right - left, 0), jnp.maximum(bottom - top, 0)
    return left, top, columns, jnp.where(columns > 0, rows, 0)


def _span(corners, x, y, columns):
    """The part begin..end of `columns` pixels from (x, y) on that a triangle may cover.

    Along a row each edge product of `_edge_products` is a + b u: its root bounds the span.
    """
    px, py, pz = corners
    px = [px[i] - (x + 0.5) * pz[i] for i in range(3)]
    py = [py[i] - (y + 0.5) * pz[i] for i in range(3)]
    begin, end = jnp.zeros(x.shape), columns.astype(jnp.float32)
    for i, j in ((1, 2), (2, 0), (0, 1)):
        p, q = px[j] * py[i], px[i] * py[j]
        b = pz[i] * py[j] - pz[j] * py[i]
        slack = _MARGIN_OF_SPAN + 4 * _TIE * (jnp.abs(p) + jnp.abs(q)) / jnp.abs(b)
        root = (q - p) / b
        begin = jnp.where(b > 1e-30, jnp.maximum(begin, jnp.ceil(root - slack)), begin)
        end = jnp.where(b < -1e-30, jnp.minimum(end, jnp.floor(root + slack) + 1), end)
    begin = jnp.minimum(begin, columns)
    return begin.astype(jnp.int32), jnp.maximum(begin, end).astype(jnp.int32)


def _edge_products(corners, u, v):
    """Does the ray through (u, v, 1) meet a front face, and where?

    With d_i = (x_i - u z_i, y_i - v z_i) the products e_k = d_j x d_i are the barycentric
    coordinates times one factor: no division, so corners beside or behind the camera need
    no clipping. Returns them (rounding below 0 removed), their sum, whether the ray hits.
    """
    x, y, z = corners
    d = [(x[i] - u * z[i], y[i] - v * z[i]) for i in range(3)]
    products, hits = [], True
    for i, j in ((1, 2), (2, 0), (0, 1)):
        p, q = d[j][0] * d[i][1], d[i][0] * d[j][1]
        hits &= p - q >= -_TIE * (jnp.abs(p) + jnp.abs(q))
        products.append(jnp.maximum(p - q, 0.0))
    total = products[0] + products[1] + products[2]
    return products, total, hits & (total > 0)


def _running_sum(values, limit: int):
    """min(cumsum(values), limit) of i32[n] >= 0 by products with a triangle of ones.

    Exact while limit <= 2**18 or the whole sum < 2**24: float32 holds every such integer,
    and each sum is cut to the limit before the next level adds them up. On CPU
    several times faster than cumsum; compiles faster than an associative scan.
    """
    blocks = jnp.pad(values, (0, -values.size % 4096)).reshape(-1, 64, 64)
    blocks = jnp.minimum(blocks, limit).astype(jnp.float32)
    upto = np.triu(np.ones((64, 64), np.float32))
    low = jnp.dot(blocks, upto, precision="highest")
    last = jnp.minimum(low[..., -1], limit)
    mid = jnp.dot(last, upto - np.eye(64, dtype=np.float32), precision="highest")
    high = jnp.minimum(mid[:, -1] + last[:, -1], limit).astype(jnp.int32)
    high = (jnp.cumsum(high) - high).astype(jnp.float32)
    total = low + (mid + high[:, None])[..., None]
    return jnp.minimum(total, limit).astype(jnp.int32).reshape(-1)[: values.size]


def _deal(counts, slots: int):
    """Deals slots to lists of `counts` entries, in order, as far as they go.

    Returns for each slot its list, which entry of it, and whether it has one; and for each
    list how many of its entries got a slot.
    """
    end = _running_sum(counts, slots)
    start = jnp.pad(end[:-1], (1, 0))
    # A slot belongs to the last list that starts at or before it.
    owner = jnp.zeros(slots, jnp.int32).at[start].add(1, mode="drop")
    owner = _running_sum(owner, counts.size) - 1
    slot = jnp.arange(slots, dtype=jnp.int32)
    return owner, slot - _take(start, owner), slot < end[-1], end - start


def _gather(index, ready, *columns):
    """`ready` and columns[index], behind a barrier: XLA would gather anew for every use."""
    return lax.optimization_barrier([ready, *(_take(c, index) for c in columns)])


def _take(values, index):
    """values[index] for an index that is known to be inside."""
    return values.at[index].get(mode="promise_in_bounds")
