"""Matched pixels: which pixel of an anchor view shows what one of the wrist image shows.

Two sources: exact geometry, where depth and cameras are known, and the tracks of a network.
Either gives arrays of one size, whatever is found, so that programs compile once; what is
no match has confidence 0.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.kin.camera import pointmap, project
from w4d_jax.kin.se3 import invert, transform

TOLERANCE = 0.01  # of its depth: how far a point may be from the surface that hides it
SURE = 0.5  # visibility above which a tracked point counts as seen


class Pairs(NamedTuple):
    """P matched pixels of each of B samples; one sample has no leading axis."""

    anchor_uv: Any  # f32[B,P,2], pixel centres at + 0.5 as everywhere
    wrist_uv: Any  # f32[B,P,2]
    view: Any  # i32[B,P] the anchor view
    confidence: Any  # f32[B,P]; 0 where there is no pair


class Seen(NamedTuple):
    """A still image's exact geometry."""

    depth: Any  # f32[...,H,W] metres along the optical axis; 0 = unknown
    K: Any  # f32[...,3,3]
    cam_from_world: Any  # f32[...,4,4]


def exact_pairs(key, anchors: Seen, wrist: Seen, count: int) -> Pairs:
    """`count` pairs, drawn uniformly from all pixels of the anchors that the wrist camera
    sees; with confidence 1, or 0 where there are not so many. anchors f[V,...], wrist none.
    """
    uv, visible = jax.vmap(pixels_in, (0, None))(anchors, wrist)
    lot = jnp.where(visible, jax.random.uniform(key, visible.shape, minval=0.5), 0.0)
    lot, chosen = jax.lax.top_k(lot.ravel(), min(count, lot.size))
    view, row, column = jnp.unravel_index(chosen, visible.shape)
    pairs = Pairs(
        jnp.stack([column, row], -1) + 0.5, uv.reshape(-1, 2)[chosen], view, jnp.sign(lot)
    )
    missing = count - len(chosen)
    return jax.tree.map(lambda x: jnp.pad(x, [(0, missing), (0, 0)][: x.ndim]), pairs)


def pixels_in(anchor: Seen, wrist: Seen):
    """Where each pixel of the anchor lies in the wrist image, f32[H,W,2], and whether it is
    seen there, bool[H,W]; 0 where it is not."""
    shape = anchor.depth.shape
    points = pointmap(anchor.depth, anchor.K).reshape(-1, 3)
    points = transform(
        wrist.cam_from_world, transform(invert(anchor.cam_from_world), points)
    )
    z = points[:, 2]
    front = (anchor.depth.ravel() > 0) & (z > 0)
    uv = project(jnp.where(front[:, None], points, 1.0), wrist.K)
    # In an image 1 / z of a plane is linear, so that its bilinear reading is exact; across
    # the edge between two surfaces it fits neither. Unknown is infinitely far.
    known = wrist.depth > 0
    near = jnp.where(known, 1 / jnp.where(known, wrist.depth, 1.0), 0.0)
    surface = bilinear(near[None, ..., None], jnp.zeros(len(uv), int), uv)[:, 0]
    seen = (
        front & is_inside(uv, *wrist.depth.shape) & (jnp.abs(z * surface - 1) < TOLERANCE)
    )
    return jnp.where(seen[:, None], uv, 0.0).reshape(*shape, 2), seen.reshape(shape)


def pairs_from_tracks(tracks, visibility, confidence, threshold: float) -> Pairs:
    """Tracks of points of the wrist image (view 0) through the V anchors -> V N pairs.

    tracks f[B,1+V,N,2] in the tracker's pixels, whose centres are integers; visibility and
    confidence f[B,1+V,N]. A pair counts where both of its ends are seen and sure.
    """
    B, views, N, _ = tracks.shape
    shape = B, views - 1, N
    good = (visibility > SURE) & (confidence > threshold)
    sure = jnp.where(
        good[:, :1] & good[:, 1:], (confidence[:, :1] + confidence[:, 1:]) / 2, 0
    )
    pairs = Pairs(
        tracks[:, 1:] + 0.5,
        jnp.broadcast_to(tracks[:, :1] + 0.5, (*shape, 2)),
        jnp.broadcast_to(jnp.arange(views - 1)[:, None], shape),
        sure,
    )
    return jax.tree.map(lambda x: x.reshape(B, -1, *x.shape[3:]), pairs)


def query_grid(height: int, width: int, side: int = 32, margin: float = 32.0) -> np.ndarray:
    """Points to track, f32[side * side, 2] (u, v) row by row, centres at integers."""
    u, v = (np.linspace(margin, n - margin, side) for n in (width, height))
    return np.stack(np.meshgrid(u, v), -1).reshape(-1, 2).astype(np.float32)


def bilinear(images, view, uv):
    """images f[V,H,W,C] of `view` i[P] at pixels uv f[P,2], edges held -> f[P,C]."""
    last = jnp.array(images.shape[2:0:-1]) - 1
    at = jnp.clip(uv - 0.5, 0, last)
    low = jnp.floor(at).astype(jnp.int32)
    (left, top), (right, bottom) = low.T, jnp.minimum(low + 1, last).T
    x, y = (at - low).T
    # One look-up for all four corners: one scatter in the gradient.
    rows, columns = jnp.stack([top, top, bottom, bottom]), jnp.stack([left, right] * 2)
    shares = jnp.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y])
    return jnp.sum(shares[..., None] * images[view, rows, columns], 0)


def is_inside(uv, height: int, width: int):
    """Whether pixels uv f[...,2] lie between pixel centres of the image: bool[...]."""
    return ((uv >= 0.5) & (uv <= jnp.array([width, height]) - 0.5)).all(-1)
