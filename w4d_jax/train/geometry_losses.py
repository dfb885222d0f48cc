"""The losses of WristWorld's first stage, and their weighted sum.

    5 camera + 10 wrist + 1 projection (+ depth + points, where these heads train)

The wrist's translation and rotation are learned from the projection alone: where its points
come from is what they mean. `wrist_parts` can teach them directly as well; a network that
learns from nothing is taught them by `pose_error`, weight `pose`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from w4d_jax.kin import se3
from w4d_jax.kin.match import Pairs
from w4d_jax.kin.pose import WXYZ, decode_pose
from w4d_jax.nets.vggt.model import Geometry
from w4d_jax.train import spc
from w4d_jax.train.defects import NO_DEFECTS, Defects
from w4d_jax.train.dense_loss import dense_loss, edges, normals
from w4d_jax.train.geometry_targets import Targets
from w4d_jax.train.pose_loss import (
    DECAY,
    PoseLoss,
    as_written,
    by_part,
    by_place,
    pose_loss,
    up_to_sign,
)


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights, the paper's; a loss of weight 0 is not computed."""

    camera: float = 5.0
    camera_parts: tuple[float, float, float] = (1.0, 1.0, 0.5)
    wrist: float = 10.0
    wrist_parts: tuple[float, float, float] = (0.0, 0.0, 1.0)
    pose: float = 0.0
    projection: float = 1.0
    behind: float = 1.0
    threshold: float = 0.2  # confidence above which a pair counts
    near: float = spc.NEAR
    depth: float = 0.0
    points: float = 0.0
    quantile: float = 0.98  # of the pixels of depth and points
    decay: float = DECAY
    defects: Defects = NO_DEFECTS


def objective(
    said: Geometry, aim: Targets, pairs: Pairs, size: tuple[int, int], config: LossConfig
) -> tuple[Any, dict[str, Any]]:
    """The sum f[], and its terms and counts to log. size: (H, W) of the wrist image.

    The projection judges the last refinement, and the pose alone: as long as the pose is
    wrong, points that project rightly by it are wrong points.
    """
    terms, counts = {}, {}
    if config.camera:
        terms["camera"] = camera_loss(said.pose, aim, config).total(config.camera_parts)
    if config.wrist:
        terms["wrist"] = wrist_loss(said.wrist, aim, config).total(config.wrist_parts)
    if config.pose:
        terms["pose"] = pose_error(said.wrist, aim, config.decay)
    if config.projection:
        found = projection(said, aim, pairs, size, config)
        mean = spc.released_loss if config.defects.one_mean else spc.paper_loss
        front = config.projection if config.defects.weighed_twice else 1.0
        terms["projection"] = mean(found, front, config.behind)
        counts = found.counts()
    if config.depth:
        said_, true = said.depth[..., None], aim.depth[..., None]
        terms["depth"] = _dense(said_, true, said.depth_confidence, aim, edges, config)
    if config.points:
        said_, true = said.points, aim.points
        terms["points"] = _dense(said_, true, said.points_confidence, aim, normals, config)
    return sum(getattr(config, name) * term for name, term in terms.items()), terms | counts


def camera_loss(steps, aim: Targets, config: LossConfig) -> PoseLoss:
    """steps f[I,B,V,9]: the anchors' encodings."""
    mean = by_place if config.defects.poses_by_place else by_part
    return _pose_loss(steps, aim.pose, aim.sure[:, None], mean, config)


def wrist_loss(steps, aim: Targets, config: LossConfig) -> PoseLoss:
    """steps f[I,B,9]: the wrist's encodings."""
    return _pose_loss(steps, aim.wrist, aim.sure, by_part, config)


def pose_error(steps, aim: Targets, decay: float = DECAY):
    """Squares of the wrist camera's error in place and turn, f[]; steps f[I,B,9].

        |c - c*|^2 + |q - q*|^2,    c = -R' t

    For a turn R that is still a guess. Its square, unlike its size, makes a network say the
    mean of what it can not tell apart, and what it can tell comes through. And t = -R c is
    as much a guess as R, while the place c of the hand is the first thing that is seen: t
    learns what puts the camera there for the R that is said, which learns nothing by it.
    """
    still = aim.wrist[..., 3:7], jax.lax.stop_gradient(steps[..., 3:7])
    true, ours = (se3.rotation_from_quat(q[..., WXYZ]) for q in still)
    place = -jnp.einsum("bji,bj->bi", true, aim.wrist[..., :3], precision="highest")
    t = -jnp.einsum("sbij,bj->sbi", ours, place, precision="highest")
    rest = jnp.broadcast_to(aim.wrist[..., 3:], (len(steps), *aim.wrist[..., 3:].shape))
    off = up_to_sign(steps, jnp.concatenate([t, rest], -1))[..., :7]
    square = jnp.where(aim.sure, jnp.square(off).sum(-1), 0.0)
    weights = decay ** jnp.arange(len(steps) - 1, -1, -1) / len(steps)
    return weights @ square.sum(-1) / jnp.maximum(aim.sure.sum(), 1)


def projection(
    said: Geometry, aim: Targets, pairs: Pairs, size: tuple[int, int], config: LossConfig
) -> spc.Consistency:
    released = config.defects.pairs_beyond_image
    rule = spc.sure_not_negative if released else spc.sure_inside
    _, _, height, width, _ = said.points.shape
    valid = rule(pairs, height, width, config.threshold)
    pose, _ = decode_pose(said.wrist[-1], *size)
    points = said.points
    if not config.defects.points_follow:
        points = jax.lax.stop_gradient(points)
    near = 0.0 if config.defects.no_near_plane else config.near
    back = config.defects.stands_back
    return spc.consistency(points, pose, aim.K, pairs, valid, size, near, back)


def _pose_loss(steps, target, sure, mean, config: LossConfig) -> PoseLoss:
    difference = as_written if config.defects.signed_quaternions else up_to_sign
    return pose_loss(
        steps, target, sure, difference=difference, mean=mean, decay=config.decay
    )


def _dense(x, target, confidence, aim: Targets, slope, config: LossConfig):
    """Of maps f[B,V,H,W,C]: a loss looks at images, whatever sample they belong to."""
    x, target, confidence, valid = (
        a.reshape(-1, *a.shape[2:]) for a in (x, target, confidence, aim.valid)
    )
    options = {"slope": slope, "quantile": config.quantile}
    return dense_loss(x, confidence, target, valid, **options).total
