"""What WristWorld's first stage is to say: recorded cameras and depths in its own words.

Recordings are metric and stand in any world. A network speaks in the frame of the first
anchor's camera and in a unit of its own: VGGT's is the mean distance of what is seen from
that camera, and a scene of any size looks alike. Poses, depths and points are divided by
one and the same unit here, or the projection of points by a pose means nothing.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.kin.camera import pointmap
from w4d_jax.kin.match import Seen
from w4d_jax.kin.pose import encode_pose, scene_scale
from w4d_jax.kin.se3 import invert, transform
from w4d_jax.train.defects import NO_DEFECTS, Defects
from w4d_jax.types import InputError

FEWEST = 100  # known points that the first view must exceed: else the unit is a guess


class Targets(NamedTuple):
    """B samples of V anchors of H x W pixels and a wrist camera."""

    pose: Any  # f32[B,V,9] encodings (kin/pose.py)
    wrist: Any  # f32[B,9]
    K: Any  # f32[B,3,3] of the wrist camera
    depth: Any  # f32[B,V,H,W]
    points: Any  # f32[B,V,H,W,3]
    valid: Any  # bool[B,V,H,W] where depth is known
    unit: Any  # f32[B] metres
    sure: Any  # bool[B] whether the unit is


def targets(
    anchors: Seen, wrist: Seen, unit=None, defects: Defects = NO_DEFECTS
) -> Targets:
    """anchors f[B,V,...] and wrist f[B,...] in metres.

    unit f[B]: metres that the network calls 1, as `unit_of` finds it for a trained one;
    None: VGGT's, for one that learns it here.
    """
    first = invert(anchors.cam_from_world[:, :1])
    poses = jnp.matmul(anchors.cam_from_world, first, precision="highest")
    hand = jnp.matmul(wrist.cam_from_world, first[:, 0], precision="highest")
    seen = jax.vmap(jax.vmap(pointmap))(anchors.depth, anchors.K)
    B, V, H, W = anchors.depth.shape
    points = transform(invert(poses), seen.reshape(B, V, H * W, 3)).reshape(seen.shape)
    valid = anchors.depth > 0
    sure = jnp.ones(B, bool) if unit is not None else valid[:, 0].sum((-2, -1)) > FEWEST
    unit = scene_scale(points, valid) if unit is None else unit
    if defects.moved_twice:
        again = jnp.matmul(poses[:, 1:], first, precision="highest")
        poses = jnp.concatenate([poses[:, :1], again], 1)
    metres = jnp.ones(B) if defects.metric_poses else unit
    return Targets(
        _in_unit(encode_pose(poses, anchors.K, H, W), metres[:, None, None]),
        _in_unit(encode_pose(hand, wrist.K, *wrist.depth.shape[-2:]), metres[:, None]),
        wrist.K,
        anchors.depth / unit[:, None, None, None],
        points / unit[:, None, None, None, None],
        valid,
        unit,
        sure,
    )


def _in_unit(encoding, unit):
    return jnp.concatenate([encoding[..., :3] / unit, encoding[..., 3:]], -1)


def unit_of(said, points, valid):
    """Metres that a network calls 1, f[B]: the median, over what is valid bool[B,V,H,W], of
    the distances of true points f[B,V,H,W,3] (metres, the first view's frame) over those
    that it says. NaN where nothing is valid."""
    far, near = (jnp.linalg.norm(x, axis=-1) for x in (points, said))
    ratio = jnp.where(valid & (near > 0), far / jnp.where(near > 0, near, 1.0), jnp.nan)
    return jax.lax.stop_gradient(jnp.nanmedian(ratio.reshape(len(ratio), -1), -1))


def checked_poses(poses: np.ndarray, name: str, defects: Defects = NO_DEFECTS):
    """Recorded poses f[...,4,4] on the host, none of them NaN; InputError says which is."""
    bad = np.asarray(~np.isfinite(poses).all((-2, -1)))
    if bad.any() and not defects.nan_is_identity:
        raise InputError(
            f"{name}: {bad.sum()} of {bad.size} poses hold NaN or infinity, the first at "
            f"{np.argwhere(bad)[0].tolist()}; leave these frames out"
        )
    return np.where(bad[..., None, None], np.eye(4, dtype=poses.dtype), poses)
