"""Inverse kinematics: link poses -> joints within their limits, and how far off they are.

Damped least squares (Levenberg-Marquardt) on the error of a pose (p, R) against (p*, R*)

    e = (p* - p, l log(R* R')),  l = 0.115 m, at which 1 mm weighs as much as 0.5 degrees,

so that where a target is out of reach, "nearest" is nearest in |e|. Limits hold in every
step: a joint that stands at its limit and is pushed outward leaves the Jacobian.

One start does not do: from random joints half of all reachable Panda targets end in a local
minimum at some limit, from the nearest of 1,024 known poses one in five. So what fails from
its first seed is tried again from the nearest known poses.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.kin import se3
from w4d_jax.kin.chain import Chain, chain_of, pose_and_jacobian
from w4d_jax.types import InputError

LENGTH = 0.115  # l, metres per radian
REACHED = (1e-3, np.deg2rad(0.5))  # metres, radians: a target within both counts as reached
CONVERGED = 3e-5  # |e| in metres where iterating ends; float32 kinematics errs by 1e-6
ITERATIONS = 40
POSES = 1024  # known poses of a link, where restarts begin
RESTARTS, TOGETHER = 16, 4  # further seeds for a target, and how many are solved at once


class IK(NamedTuple):
    """Joints and residuals; the nearest pose found where `reached` is False, never NaN."""

    q: np.ndarray  # f32[...,T,J] in the robot's joint order
    position_error: np.ndarray  # f32[...,T] metres
    rotation_error: np.ndarray  # f32[...,T] radians
    reached: np.ndarray  # bool[...,T] within 1 mm and 0.5 degrees


def inverse(robot, link: str, targets, q0=None) -> IK:
    """Joints that bring `link` to each target of a sequence, each seeded by the one before.

    targets f32[...,T,4,4] base_from_link, or f32[...,T,7] (xyz, quaternion wxyz); leading
    axes are independent sequences, so N unrelated poses are f32[N,1,4,4]. q0 f32[J] or
    f32[...,J]: where the first frame starts, and what the joints that do not move the link
    (fingers) stay at; default robot.neutral.

    Only where frames stay out of reach are other postures of the first frame tried; that
    which reaches most frames wins. Later frames never jump to another posture.
    """
    targets = _poses(targets)
    lead, T = targets.shape[:-3], targets.shape[-3]
    q0 = np.asarray(robot.neutral if q0 is None else q0)
    if q0.shape[:-1] not in ((), lead):
        raise InputError(f"q0: shape {q0.shape}, need {(*lead, len(robot.joint_names))}")
    q0 = robot.check(q0.reshape(-1, *q0.shape[-1:]))
    joints, chain = chain_of(robot, link)
    targets = targets.reshape(-1, T, 4, 4)
    q = np.repeat(np.broadcast_to(q0, (len(targets), q0.shape[-1]))[:, None], T, 1)

    start = q[:, 0, joints]
    found = _follow(chain, targets, start)
    for k in range(0, RESTARTS, TOGETHER):
        short = np.flatnonzero(~found.reached.all(-1))
        if not short.size:
            break
        seeds = _nearest(robot, link, targets[short, 0])[:, k : k + TOGETHER]
        more = _follow(
            chain, np.repeat(targets[short], TOGETHER, 0), seeds.reshape(-1, len(joints))
        )
        tries = IK(
            *(
                np.concatenate(
                    [old[short, None], new.reshape(-1, TOGETHER, *new.shape[1:])], 1
                )
                for old, new in zip(found, more, strict=True)
            )
        )
        best = _best(tries, start[short])
        for old, new in zip(found, tries, strict=True):
            old[short] = new[np.arange(len(short)), best]

    q[..., joints] = found.q
    return IK(*(a.reshape(*lead, *a.shape[1:]) for a in (q, *found[1:])))


def solve(chain: Chain, target, seed):
    """One target f32[4,4] from one seed f32[n]; jit, vmap.

    -> q f32[n], what is missing f32[] metres and f32[] radians.
    """

    def going(state):
        _, e, _, damping, count = state
        return (count < ITERATIONS) & (damping < 1e3) & (e @ e > CONVERGED**2)

    def improve(state):
        q, e, J, damping, count = state
        pull = J.T @ e
        held = ((q <= chain.lower) & (pull < 0)) | ((q >= chain.upper) & (pull > 0))
        free = jnp.where(held, 0.0, J)
        A = jnp.matmul(free, free.T, precision="highest") + damping * jnp.eye(6)
        step = free.T @ jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(A), e)
        trial = jnp.clip(q + step, chain.lower, chain.upper)
        new = (trial, *_error_and_jacobian(chain, target, trial))
        better = new[1] @ new[1] < e @ e
        q, e, J = jax.tree.map(functools.partial(jnp.where, better), new, (q, e, J))
        damping = jnp.where(better, jnp.maximum(0.3 * damping, 1e-7), 8.0 * damping)
        return q, e, J, damping, count + 1

    q = jnp.clip(seed, chain.lower, chain.upper)
    state = (q, *_error_and_jacobian(chain, target, q), jnp.float32(1e-3), jnp.int32(0))
    q, e, *_ = jax.lax.while_loop(going, improve, state)
    return q, jnp.linalg.norm(e[:3]), jnp.linalg.norm(e[3:]) / LENGTH


def follow(chain: Chain, targets, seed):
    """`solve` for a sequence f32[T,4,4], each frame seeded by the one before; jit, vmap."""

    def frame(seed, target):
        solved = solve(chain, target, seed)
        return solved[0], solved

    return jax.lax.scan(frame, seed, targets)[1]


def _error_and_jacobian(chain: Chain, target, q):
    pose, J = pose_and_jacobian(chain, q)
    turn = jnp.matmul(target[:3, :3], pose[:3, :3].T, precision="highest")
    e = jnp.concatenate([target[:3, 3] - pose[:3, 3], LENGTH * se3.rotation_vector(turn)])
    return e, J * jnp.array([[1.0], [1.0], [1.0], [LENGTH], [LENGTH], [LENGTH]])


_follow_all = jax.jit(jax.vmap(follow, (None, 0, 0)))


def _follow(chain: Chain, targets, seeds) -> IK:
    """Sequences [N,T,4,4] from seeds [N,n].

    Padded to few shapes, so that little is ever compiled: T by repeating the last frame
    (solved already, no iteration), N to 1, 16 or a multiple of 256 that runs in parts.
    """
    N, T = targets.shape[:2]
    lanes = next((n for n in (1, 16) if n >= N), 256)
    frames = 1 if T == 1 else max(16, 1 << (T - 1).bit_length())
    targets = np.pad(targets, ((0, -N % lanes), (0, frames - T), (0, 0), (0, 0)), "edge")
    seeds = np.pad(seeds, ((0, -N % lanes), (0, 0)), "edge")
    parts = [
        _follow_all(chain, targets[i : i + lanes], seeds[i : i + lanes])
        for i in range(0, len(targets), lanes)
    ]
    q, distance, angle = (np.concatenate(a)[:N, :T] for a in zip(*parts, strict=True))
    return IK(q, distance, angle, (distance <= REACHED[0]) & (angle <= REACHED[1]))


@functools.lru_cache(maxsize=64)
def _known_poses(robot, link: str) -> tuple[np.ndarray, np.ndarray]:
    """Joints f32[K,n] all over the limits and where they bring the link, f32[K,4,4]."""
    joints, chain = chain_of(robot, link)
    q = robot.sample(POSES)[:, joints]
    return q, np.asarray(jax.jit(jax.vmap(pose_and_jacobian, (None, 0)))(chain, q)[0])


def _nearest(robot, link: str, targets) -> np.ndarray:
    """Seeds for targets [N,4,4]: the joints of the nearest known poses, f32[N,RESTARTS,n],
    by |p - p'|^2 + |0.3 m (R - R')|^2; found by trying: 0.2 to 0.4 m serve equally."""
    q, poses = _known_poses(robot, link)
    a, b = (
        np.concatenate([x[:, :3, 3], 0.3 * x[:, :3, :3].reshape(-1, 9)], -1)
        for x in (targets, poses)
    )
    square = np.sum(b * b, -1) - 2.0 * a @ b.T  # up to the target's own norm
    return q[np.argsort(square, -1)[:, :RESTARTS]]


def _best(tries: IK, start) -> np.ndarray:
    """Of tries [N,K,T] the one that reaches most frames, then errs least on the others,
    then begins nearest to start [N,n]. -> i64[N]"""
    missed = ~tries.reached
    error = np.sum(missed * (tries.position_error + LENGTH * tries.rotation_error), -1)
    travel = np.abs(tries.q[:, :, 0] - start[:, None]).max(-1)
    return np.lexsort((travel, error, missed.sum(-1)), axis=-1)[:, 0]


def _poses(targets) -> np.ndarray:
    """Targets as poses f32[...,T,4,4], or an InputError."""
    targets = np.asarray(targets)
    matrix = targets.shape[-2:] == (4, 4) and targets.ndim >= 3
    vector = targets.shape[-1:] == (7,) and targets.ndim >= 2
    if not (matrix or vector) or 0 in targets.shape:
        raise InputError(f"targets: shape {targets.shape}, need [T,7] or [T,4,4]")
    targets = targets.astype(np.float32)
    if not np.isfinite(targets).all():
        raise InputError("targets: NaN or infinity")
    if matrix:
        R = targets[..., :3, :3]
        gap = np.abs(R @ np.swapaxes(R, -1, -2) - np.eye(3)).max()
        if not gap < 1e-3 or not (np.linalg.det(R) > 0).all():
            raise InputError(f"targets: not rotations (R R' off by {gap:.2g}, need < 1e-3)")
        return targets
    length = np.linalg.norm(targets[..., 3:], axis=-1)
    worst = length.flat[np.abs(length - 1.0).argmax()]
    if abs(worst - 1.0) > 1e-2:
        raise InputError(f"targets: a quaternion of length {worst:.3g}, need 1 (w x y z)")
    return np.asarray(se3.pose_from_xyz_quat(targets))
