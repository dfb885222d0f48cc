"""The hand of an arm, found from the kinematic tree alone, and how far it is open."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from w4d_jax.kin import se3
from w4d_jax.types import InputError

SLACK = 2e-3  # metres that a recorded opening may overstep the gripper's
TIP = 0.02  # metres of the fingers' ends between which things are held


class Gripper(NamedTuple):
    """How the finger joints go with the opening.

    Opening: metres by which the tips of two fingers stand further apart than where they
    come closest, whatever moves them; for two sliding fingers the sum of their travels. All
    finger joints run through their ranges together.
    """

    joints: np.ndarray  # i64[g] columns of q
    q: np.ndarray  # f64[S,g] from closed to open
    opening: np.ndarray  # f64[S] metres, increasing from 0


@functools.lru_cache(maxsize=64)
def hand_link(robot) -> str:
    """The link that carries the fingers: the default end effector.

    On the longest chain of moving frames, the first link that branches into further moving
    frames and has more of them behind it than beyond it (a head on a torso is no finger).
    An arm that never branches so ends in its last moving link.
    """
    parent, _, behind, beyond = _depths(robot.tree)
    at = tip = int(np.argmax(behind))
    path = [at]
    while parent[at] >= 0:
        at = parent[at]
        path.insert(0, at)
    for i in path:
        branches = [c for c, p in enumerate(parent) if p == i and beyond[c] > behind[i]]
        if len(branches) > 1 and behind[i] > beyond[i] - behind[i]:
            return robot.link_names[robot.tree.link.index(i)]
    return robot.link_names[robot.tree.link.index(tip)]


@functools.lru_cache(maxsize=64)
def gripper_of(robot) -> Gripper | None:
    """The gripper beyond `hand_link`; None where nothing moves there."""
    hand = robot.tree.link[robot.link_index(hand_link(robot))]
    parent, moving, *_ = _depths(robot.tree)
    beyond = [hand]  # frames stand in topological order
    beyond += [i for i in range(hand + 1, len(parent)) if _stands_on(parent, i, hand)]
    fingers = [i for i in beyond[1:] if moving[i]]
    joints = np.flatnonzero(robot.tree.gain[fingers].any(0))
    if not joints.size:
        return None
    share = np.linspace(0.0, 1.0, 65)[:, None]
    low, high = robot.span[joints].T
    q = np.repeat(robot.neutral[None].astype(np.float64), len(share), 0)
    q[:, joints] = low + share * (high - low)
    links = [k for k, i in enumerate(robot.tree.link) if i in beyond]
    poses = jax.jit(robot.link_poses)(q.astype(np.float32))
    points = np.asarray(poses, np.float64)[:, links][..., :3, 3]
    apart = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    tips = np.unravel_index(np.abs(apart[-1] - apart[0]).argmax(), apart.shape[1:])
    apart, q = apart[:, *tips], q[:, joints]
    if apart[-1] < apart[0]:
        apart, q = apart[::-1], q[::-1]
    closed = apart.argmin()  # beyond it the fingers of some pass each other
    apart, q = apart[closed:], q[closed:]
    if len(apart) < 2 or not (np.diff(apart) > 0).all():
        names = ", ".join(robot.joint_names[j] for j in joints)
        raise InputError(
            f"robot {robot.name}: the joints {names} beyond {hand_link(robot)} do not open "
            "and close like a gripper; give all joints as q"
        )
    return Gripper(joints, q, apart - apart[0])


def finger_joints(gripper: Gripper, opening) -> np.ndarray:
    """Opening f[T] metres -> f32[T,g]; InputError beyond what the gripper can do."""
    opening = np.asarray(opening, np.float64)
    most = gripper.opening[-1]
    wrong = ~((opening >= -SLACK) & (opening <= most + SLACK))
    if wrong.any():
        t = int(np.argmax(wrong))
        raise InputError(
            f"gripper: {opening[t]:g} m in frame {t}, this one opens from 0 to {most:.4g} m"
        )
    columns = [np.interp(opening, gripper.opening, q) for q in gripper.q.T]
    return np.stack(columns, -1).astype(np.float32)


@functools.lru_cache(maxsize=64)
def grip_point(robot) -> np.ndarray:
    """f32[3] metres in `hand_link`: the middle of what lies between the finger tips.

    The tips are the last TIP of the links that move beyond the hand, in the direction from
    its origin to their middle; of a hand that moves nothing, of the hand itself.
    """
    hand = robot.link_index(hand_link(robot))
    frame, (parent, _, behind, _) = robot.tree.link[hand], _depths(robot.tree)
    poses = np.asarray(robot.link_poses(robot.neutral), np.float64)
    hand_from_link = np.linalg.inv(poses[hand]) @ poses
    own, fingers = [np.zeros((1, 3))], []
    for k, i in enumerate(robot.tree.link):
        corners = robot.triangles.corners[robot.triangles.link == k].reshape(-1, 3)
        if not _stands_on(parent, i, frame) or not len(corners):
            continue
        points = corners @ hand_from_link[k, :3, :3].T + hand_from_link[k, :3, 3]
        (fingers if behind[i] > behind[frame] else own).append(points)
    points = np.concatenate(fingers or own)
    along = points @ _middle(points)
    ends = along >= along.max() - TIP * np.linalg.norm(_middle(points))
    return _middle(points[ends]).astype(np.float32)


def grip_actions(robot, joints) -> np.ndarray:
    """What joints f32[T,J] do with the grip, as `Clip.actions` say it: xyz + quaternion
    wxyz of `grip_point` and the opening in metres (0 where nothing opens), f32[T,8]."""
    hand = robot.link_poses(joints)[:, robot.link_index(hand_link(robot))]
    at = se3.transform(hand, grip_point(robot)[None])[:, 0]
    pose = np.asarray(se3.xyz_quat_from_pose(se3.rigid(hand[:, :3, :3], at)))
    gripper, opening = gripper_of(robot), np.zeros(len(joints))
    if gripper is not None:
        q, have = gripper.q[:, 0], joints[:, gripper.joints[0]]
        sign = np.sign(q[-1] - q[0])  # np.interp wants increasing ones
        opening = np.interp(sign * have, sign * q, gripper.opening)
    return np.column_stack([pose, opening]).astype(np.float32)


def _middle(points) -> np.ndarray:
    """Of the box round points f[N,3]."""
    return (points.min(0) + points.max(0)) / 2


def _depths(tree) -> tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray]:
    """-> parent, whether each frame moves, how many moving frames lie on the way to it, and
    how many on the longest way through it."""
    moving = tree.first.any((1, 2))
    behind = moving.astype(int)
    for i, p in enumerate(tree.parent):
        behind[i] += behind[p] if p >= 0 else 0
    beyond = behind.copy()
    for i, p in reversed(list(enumerate(tree.parent))):
        if p >= 0:
            beyond[p] = max(beyond[p], beyond[i])
    return tree.parent, moving, behind, beyond


def _stands_on(parent: tuple[int, ...], i: int, base: int) -> bool:
    while i > base:
        i = parent[i]
    return i == base
