"""Losses of depth maps and pointmaps, weighted by the confidence that comes with them.

With e = |x - y| the distance of prediction and target of a pixel over its channels, and c
its confidence (> 1), over valid pixels:

    error       mean of e
    confidence  mean of gamma e c - alpha log c       best at c = alpha / (gamma e)
    slope       of differences between neighbours' errors (`edges`), or of 1 - cosine of the
                angle between normals (`normals`), at strides 1, 2, 4, ...

A single value counts at most LIMIT and has no gradient beyond. Gradients are finite also
where prediction and target are equal and where three points stand in line.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

LIMIT = 100.0
FEWEST = 100  # valid pixels without which a batch does not count
FEWEST_RANKED = 1000  # values without which, or of which, no quantile is taken
FEWEST_NORMALS = 10
SHORTEST = 1e-8  # normals of smaller triangles have no direction


class DenseLoss(NamedTuple):
    confidence: Any
    error: Any
    slope: Any

    @property
    def total(self):
        return self.confidence + self.error + self.slope


def dense_loss(
    x,
    confidence,
    target,
    valid=None,
    gamma: float = 1.0,
    alpha: float = 0.2,
    slope: Callable | None = None,
    quantile: float = 1.0,
) -> DenseLoss:
    """x, target f[N,H,W,C], confidence f[N,H,W], valid bool[N,H,W] (None: all are).

    slope: `edges`, `normals`, or either with its options bound. quantile: the share of the
    pixel terms, from the smallest on, that counts. All are 0 below FEWEST valid pixels.
    """
    valid = jnp.ones(confidence.shape, bool) if valid is None else valid
    target = jnp.clip(jnp.where(valid[..., None], target, 0.0), -LIMIT, LIMIT)
    error = _norm(jnp.where(valid[..., None], x - target, 0.0))
    weighed = gamma * error * confidence - alpha * jnp.log(confidence)
    terms = DenseLoss(
        _mean_of_least(weighed, valid, quantile),
        _mean_of_least(error, valid, quantile),
        slope(x, target, valid, confidence) if slope else jnp.zeros(()),
    )
    enough = valid.sum() >= FEWEST
    return DenseLoss(*(jnp.where(enough, term, 0.0) for term in terms))


# ------ how a slope's value counts: value, confidence and whether it is valid, f[...]


def evenly(value, confidence, valid):
    return jnp.where(valid, value, 0.0)


def by_confidence(value, confidence, valid, gamma: float = 1.0, alpha: float = 0.2):
    return jnp.where(valid, gamma * value * confidence - alpha * jnp.log(confidence), 0.0)


def by_confidence_of_all(value, confidence, valid, gamma: float = 1.0, alpha: float = 0.2):
    """Released: invalid pixels are rewarded for their confidence as well."""
    return gamma * jnp.where(valid, value, 0.0) * confidence - alpha * jnp.log(confidence)


# ------ slopes: f[N,H,W,C] twice, bool[N,H,W], f[N,H,W] -> f[]


def edges(x, target, valid, confidence, scales: int = 4, weigh=evenly):
    """|e_j - e_i| of neighbours i, j along rows and columns, over the number of valid
    entries; the confidence is that of j, the right or lower one."""
    error = jnp.where(valid[..., None], x - target, 0.0)
    total = 0.0
    for scale in range(scales):
        e, m, c = _thinned(2**scale, error, valid[..., None], confidence[..., None])
        for axis in (1, 2):
            (e0, e1), (m0, m1), (_, c1) = (_neighbours(a, axis) for a in (e, m, c))
            step = jnp.minimum(jnp.abs(e1 - e0), LIMIT)
            total += weigh(step, c1, m0 & m1).sum() / jnp.maximum(m.sum() * e.shape[-1], 1)
    return total / scales


def normals(x, target, valid, confidence, scales: int = 3, weigh=evenly):
    """1 - cosine of the angle between normals. A point of f[N,H,W,3] has four: those of the
    triangles it makes with its neighbours above, left, below and right."""
    total = 0.0
    for scale in range(scales):
        p, q, m, c = _thinned(2**scale, x, target, valid, confidence)
        value = 1 - jnp.sum(_normals(p) * _normals(q), -1)
        beside = _around(m)
        whole = m & beside & jnp.roll(beside, -1, 0)
        count = whole.sum()
        mean = weigh(value, c, whole).sum() / jnp.maximum(count, 1)
        total += jnp.where(count >= FEWEST_NORMALS, mean, 0.0)
    return total / scales


def _normals(points):
    """f[N,H,W,3] -> unit f[4,N,H,W,3]; 0 where there is no direction."""
    side = _around(points) - points
    normal = jnp.cross(side, jnp.roll(side, -1, 0))
    length = _norm(normal)[..., None]
    found = length > SHORTEST
    return jnp.where(found, normal / jnp.where(found, length, 1.0), 0.0)


def _around(a):
    """[N,H,W,...] -> [4,N,H,W,...]: what is above, left, below, right; 0 off the image."""
    a = jnp.pad(a, [(0, 0), (1, 1), (1, 1), *[(0, 0)] * (a.ndim - 3)])
    return jnp.stack([a[:, :-2, 1:-1], a[:, 1:-1, :-2], a[:, 2:, 1:-1], a[:, 1:-1, 2:]])


def _neighbours(a, axis: int):
    """All but the last, all but the first."""
    last = a.shape[axis] - 1
    return lax.slice_in_dim(a, 0, last, axis=axis), lax.slice_in_dim(
        a, 1, last + 1, axis=axis
    )


def _thinned(stride: int, *arrays):
    return [a[:, ::stride, ::stride] for a in arrays]


def _mean_of_least(value, valid, quantile: float):
    """Mean of the valid values below the one of rank quantile (n - 1), if enough are."""
    if quantile < 1:
        n = valid.sum()
        ranked = jnp.sort(jnp.where(valid, jnp.minimum(value, LIMIT), jnp.inf).ravel())
        bound = ranked[jnp.round(quantile * (n - 1)).astype(jnp.int32)]
        least = valid & (value < bound)
        enough = (n > FEWEST_RANKED) & (least.sum() > FEWEST_RANKED)
        valid = jnp.where(enough, least, valid)
    value = jnp.where(valid, jnp.clip(value, -LIMIT, LIMIT), 0.0)
    return value.sum() / jnp.maximum(valid.sum(), 1)


def _norm(x):
    """Length over the last axis, with gradient 0 where it is 0."""
    square = jnp.sum(x * x, -1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
