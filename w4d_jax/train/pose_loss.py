"""The loss of poses that a head refines step by step: VGGT's cameras, WristWorld's wrist.

Encodings are those of kin/pose.py. Each of their three parts (translation, quaternion,
fields of view) costs, over n steps of which step i is off by e_i,

    1/n sum_i decay^(n-1-i) mean of min(|e_i|, LIMIT),

so that there is no gradient beyond LIMIT.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

LIMIT = 100.0
DECAY = 0.6


class PoseLoss(NamedTuple):
    translation: Any
    rotation: Any
    fields: Any

    def total(self, weights: tuple[float, float, float]):
        return sum(w * part for w, part in zip(weights, self, strict=True))


def up_to_sign(steps, target):
    """Differences f[I,...,9], the quaternion's to the nearer of the two that mean it."""
    place, quat, fields = jnp.split(jnp.broadcast_to(target, steps.shape), (3, 7), -1)
    far = jnp.sum(steps[..., 3:7] * quat, -1, keepdims=True) < 0
    return steps - jnp.concatenate([place, jnp.where(far, -quat, quat), fields], -1)


def as_written(steps, target):
    """Released: a quaternion q and -q, which are one rotation, are up to 2 apart."""
    return steps - target


def absolute(difference):
    return jnp.abs(difference)


def euclidean(difference):
    """The length of a part, f[...,1]; with gradient 0 at 0."""
    square = jnp.sum(difference**2, -1, keepdims=True)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def by_part(difference, valid, distance):
    """The mean f[I] of each part over what is valid."""
    parts = difference[..., :3], difference[..., 3:7], difference[..., 7:]
    means = []
    for part in parts:
        error = jnp.where(valid[..., None], jnp.minimum(distance(part), LIMIT), 0.0)
        count = jnp.maximum(valid.sum() * error.shape[-1], 1)
        means.append(error.reshape(len(error), -1).sum(-1) / count)
    return means


def by_place(difference, valid, distance):
    """Released, where no view has a mask: of all numbers in a row, whatever they are, the
    first three are the "translation", the next four the "rotation", the rest the "fields".
    """
    row = difference.reshape(len(difference), -1)
    parts = row[:, :3], row[:, 3:7], row[:, 7:]
    return [jnp.minimum(distance(part), LIMIT).mean(-1) for part in parts]


def pose_loss(
    steps,
    target,
    valid=None,
    *,
    difference: Callable = up_to_sign,
    distance: Callable = absolute,
    mean: Callable = by_part,
    decay: float = DECAY,
) -> PoseLoss:
    """steps f[I,...,9], target f[...,9], valid bool[...] or what broadcasts (None: all)."""
    valid = jnp.broadcast_to(True if valid is None else valid, target.shape[:-1])
    n = len(steps)
    weights = decay ** jnp.arange(n - 1, -1, -1) / n
    parts = mean(difference(steps, target), valid, distance)
    return PoseLoss(*(jnp.dot(weights, part, precision="highest") for part in parts))
