"""Actions from a file -> the robot's joints, frame by frame.

An actions.npz (or q.npz) says where the robot is to be in each of T frames, in one of three
ways; frame 0 is the frame of the first image:

    q [T,J]          all free joints, columns named by joint_names [J], in any order
    ee_pose [T,7]    the end effector in the base frame: xyz + quaternion wxyz
    ee_delta [T,6]   its change since the frame before, in the base frame: xyz + rotation
                     vector; row 0 is the change since q0. What is added up is what was
                     asked for, not what was reached: errors do not accumulate.

The latter two go with

    gripper [T]      metres by which the fingers are open (see kin/gripper.py); may be left
                     out where nothing opens, or where q0 says how the fingers stay
    q0 [J]           joints before frame 0, in the order of joint_names or else the robot's:
                     where the solver starts (default: the middle of all limits); ee_delta
                     needs it

The end effector is the link that carries the fingers (`hand_link`) unless the caller names
another. Files may hold further arrays; they are not read.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.kin import se3
from w4d_jax.kin.chain import chain_of
from w4d_jax.kin.gripper import finger_joints, gripper_of, hand_link
from w4d_jax.kin.inverse import IK, LENGTH, inverse
from w4d_jax.npz import load
from w4d_jax.types import InputError

WAYS = ("q", "ee_pose", "ee_delta")


def read_actions(
    path, robot, ee_link: str | None = None, tolerance: float = 0.0
) -> tuple[np.ndarray, IK | None]:
    """-> joints f32[T,J] in the robot's order, and how well the poses were reached (None
    where the file gives joints).

    tolerance: metres by which a frame may miss its pose and still pass, with 0.5 degrees
    for each millimetre; one millimetre always may. Raises InputError naming the file for
    anything that is not such an action sequence, and for frames out of reach.
    """
    arrays, _ = load(Path(path), (*WAYS, "joint_names", "gripper", "q0"))
    try:
        return joints_from_actions(arrays, robot, ee_link, tolerance)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def joints_from_actions(
    arrays: dict[str, np.ndarray],
    robot,
    ee_link: str | None = None,
    tolerance: float = 0.0,
) -> tuple[np.ndarray, IK | None]:
    """`read_actions` for arrays that are in memory."""
    ways = [way for way in WAYS if way in arrays]
    if len(ways) != 1:
        have = " and ".join(ways) or f"none of them, but {sorted(arrays)}"
        raise InputError(f"need one of {', '.join(WAYS)}; it holds {have}")
    if ways == ["q"]:
        return robot.check(_numbers(arrays, "q", "T J"), _names(arrays)), None

    link = hand_link(robot) if ee_link is None else ee_link
    gripper = gripper_of(robot)
    if gripper and np.isin(chain_of(robot, link)[0], gripper.joints).any():
        raise InputError(
            f"end effector {link} is part of the gripper, need a link before the fingers, "
            f"such as {hand_link(robot)}"
        )
    q0 = _start(arrays, robot)
    if ways == ["ee_pose"]:
        poses = _numbers(arrays, "ee_pose", "T 7")
    else:
        poses = accumulate(robot, link, q0, _numbers(arrays, "ee_delta", "T 6"))
    joints, fingers = _fingers(arrays, gripper, len(poses))
    found = inverse(robot, link, poses, q0)
    _demand(found, link, tolerance)
    found.q[:, joints] = fingers
    return found.q, found


def accumulate(robot, link: str, q0, delta) -> np.ndarray:
    """Poses f32[T,4,4] that follow the link's pose at q0 f32[J] by delta f[T,6] each."""
    start = robot.link_poses(jnp.asarray(q0))[robot.link_index(link)]

    def add(pose, change):
        R = jnp.matmul(
            se3.rotation_from_vector(change[3:]), pose[:3, :3], precision="highest"
        )
        pose = se3.rigid(R, pose[:3, 3] + change[:3])
        return pose, pose

    return np.asarray(jax.lax.scan(add, start, jnp.asarray(delta))[1])


def _start(arrays, robot) -> np.ndarray:
    """q0 f32[J], checked."""
    if "q0" in arrays:
        names = _names(arrays) if "joint_names" in arrays else None
        return robot.check(_numbers(arrays, "q0", "J")[None], names)[0]
    if "ee_delta" in arrays:
        raise InputError("ee_delta without q0: need the joints that it starts from")
    return robot.neutral


def _fingers(arrays, gripper, T: int) -> tuple[np.ndarray, np.ndarray]:
    """The joints i64[g] that the opening sets, and to what f32[T,g]."""
    if "gripper" not in arrays:
        if gripper is not None and "q0" not in arrays:
            raise InputError(
                "no gripper: need gripper [T] in metres, or q0 to keep it as it is"
            )
        return np.zeros(0, int), np.zeros((T, 0), np.float32)
    if gripper is None:
        raise InputError(
            "gripper: the robot has no finger joints beyond its hand; leave it out"
        )
    opening = _numbers(arrays, "gripper", "T")
    if len(opening) != T:
        raise InputError(f"gripper: {len(opening)} frames, the end effector has {T}")
    return gripper.joints, finger_joints(gripper, opening)


def _demand(found: IK, link: str, tolerance: float) -> None:
    """InputError unless all frames are reached or within tolerance (metres)."""
    miss = np.maximum(found.position_error, LENGTH * found.rotation_error)
    bad = np.flatnonzero(~(found.reached | (miss <= tolerance)))
    if bad.size:
        first = "; ".join(
            f"frame {t} by {1e3 * found.position_error[t]:.1f} mm and "
            f"{np.rad2deg(found.rotation_error[t]):.1f} degrees"
            for t in bad[:3]
        )
        raise InputError(
            f"{link} misses {bad.size} of {len(miss)} poses: {first}"
            f"{'; ...' if bad.size > 3 else ''}; move them, or allow a tolerance"
        )


def _names(arrays) -> list[str]:
    if "joint_names" not in arrays:
        raise InputError("q without joint_names: need the name of each column")
    names = arrays["joint_names"]
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8", "replace")
    if names.dtype.kind != "U" or names.ndim != 1:
        raise InputError(
            f"joint_names is {names.dtype.name} {names.shape}, need strings [J]"
        )
    return names.tolist()


def _numbers(arrays, name: str, axes: str) -> np.ndarray:
    """An array as f32, its axes as described (a digit is a size), finite, not empty."""
    x, need = arrays[name], axes.split()
    fits = x.ndim == len(need) and all(
        n == int(a) if a.isdigit() else n > 0 for n, a in zip(x.shape, need, strict=False)
    )
    if x.dtype.kind not in "fiu" or not fits:
        raise InputError(
            f"{name} is {x.dtype.name} {x.shape}, need numbers [{', '.join(need)}]"
        )
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        at = np.argwhere(~np.isfinite(x))[0].tolist()
        raise InputError(f"{name} holds NaN or infinity, first at {at}")
    return x
