"""Spatial projection consistency: matched pixels alone tell where the wrist camera is.

WristWorld (arXiv 2510.07313). Pixel a_j of an anchor view and pixel w_j of the wrist image
show one point. The anchor's pointmap gives the point, the predicted pose moves it into the
wrist camera, the known K projects it:

    X_j = pointmap(a_j)           bilinear
    P_j = R X_j + t,  z_j = P_j,z
    z_j > near:   e_j = 30 / (H^2 + W^2) * mean of (project(K, P_j) - w_j)^2
    else:         d_j = near - z_j    pushes the point in front of the camera

    paper:     mean of e over the points in front + mean of d over those behind
    released:  mean of either over all pairs together; near = 0

A squared pixel error grows as 1 / z^2 and has no bound at near = 0; `near` bounds it. It
also shrinks as a camera stands back, whose other errors then cost less. Where that is not
wanted (`stands_back` False) e_j (z_j / sg z_j)^2 stands for e_j: the same value, whose
gradient is that of the distance of P_j from the ray of its pixel, at the depth it has.

Pairs that do not count weigh nothing in value and gradient; with none left both are 0.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from w4d_jax.kin.camera import project
from w4d_jax.kin.match import Pairs, bilinear, is_inside
from w4d_jax.kin.se3 import transform

NEAR = 0.01  # in the points' unit: the renderers' near plane


class Consistency(NamedTuple):
    """Each pair's part, B samples of P pairs."""

    error: Any  # f[B,P] e_j of pairs in front, else 0
    depth: Any  # f[B,P] d_j of pairs behind, else 0
    front: Any  # bool[B,P]
    behind: Any  # bool[B,P]

    def counts(self) -> dict[str, Any]:
        """What to log: a batch without valid pairs has loss 0 and shows here."""
        front, behind = self.front.sum(), self.behind.sum()
        return {"spc_pairs": front + behind, "spc_behind": behind}


def consistency(
    points, cam_from_world, K, pairs: Pairs, valid, size, near=NEAR, stands_back=True
):
    """-> Consistency of a batch. By default as in the paper.

    points f[B,V,H,W,3] and poses f[B,4,4] in one frame and unit, wrist K f[B,3,3], valid
    bool[B,P]: which pairs count; size: (H, W) of the wrist image; near in the points' unit.
    """
    X = jax.vmap(bilinear)(points, pairs.view, pairs.anchor_uv)
    P = transform(cam_from_world, X)
    z = P[..., 2]
    front = valid & (z > near)
    # Where nothing is divided by z, the gradient must not pass through the division.
    uv = jax.vmap(project)(jnp.where(front[..., None], P, 1.0), K)
    square = jnp.mean(jnp.square(uv - pairs.wrist_uv), -1)
    if not stands_back:
        away = jnp.where(front, z, 1.0)
        square = square * jnp.square(away / jax.lax.stop_gradient(away))
    return Consistency(
        error=jnp.where(front, gain(*size) * square, 0.0),
        depth=jnp.where(valid & (z < near), near - z, 0.0),
        front=front,
        behind=valid & ~front,
    )


def paper_loss(c: Consistency, front: float = 1.0, behind: float = 1.0):
    """front L_u + behind L_depth: two means. A point at z = near is in neither."""
    pushed = c.depth > 0
    return front * _mean(c.error, c.front) + behind * _mean(c.depth, pushed)


def released_loss(c: Consistency, front: float = 1.0, behind: float = 1.0):
    """One mean over all pairs, so that each set's weight depends on the other's size."""
    return _mean(front * c.error + behind * c.depth, c.front | c.behind)


def sure_inside(pairs: Pairs, height: int, width: int, threshold: float):
    """Which pairs count, bool[B,P]: sure enough, and inside the anchor's image."""
    return (pairs.confidence > threshold) & is_inside(pairs.anchor_uv, height, width)


def sure_not_negative(pairs: Pairs, height: int, width: int, threshold: float):
    """The released rule: what lies beyond the right or the bottom edge counts too."""
    return (pairs.confidence > threshold) & (pairs.anchor_uv >= 0.5).all(-1)


def gain(height: int, width: int) -> float:
    """What a squared pixel counts: the scale of the loss is that of no image's size."""
    return 30.0 / (height**2 + width**2)


def _mean(values, counts):
    return jnp.sum(values) / jnp.maximum(jnp.sum(counts), 1)
