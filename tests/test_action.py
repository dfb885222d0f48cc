"""Action files: what they mean, and that nothing but an InputError says they are wrong."""

import zipfile
from pathlib import Path

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from w4d_jax.kin import load_robot, se3
from w4d_jax.kin.action import read_actions
from w4d_jax.kin.gripper import finger_joints, gripper_of, hand_link
from w4d_jax.types import InputError

ARM = Path(__file__).parents[1] / "w4d_jax" / "data" / "assets" / "panda_w4d.xml"
ROBOTS = Path(__file__).parents[2] / "shared" / "data" / "robots"
T = 12
READY = np.array([0.1, -0.4, 0.2, -2.1, 0.1, 1.8, 0.6, 0.02], np.float32)


@pytest.fixture(scope="module")
def robot():
    return load_robot(ARM)


@pytest.fixture(scope="module")
def motion(robot):
    """A smooth motion: joints f32[T,8], hand and tool poses f32[T,4,4]."""
    phase = np.linspace(0, 2, T)[:, None] + np.arange(8)
    q = (READY + 0.25 * (np.sin(phase) - np.sin(phase[:1]))).astype(np.float32)
    q[:, 7] = np.linspace(0.02, 0.04, T)
    poses = np.asarray(jax.jit(robot.link_poses)(q))
    return q, poses[:, robot.link_index("hand")], poses[:, robot.link_index("tool")]


@pytest.fixture
def save(tmp_path):
    def write(**arrays) -> Path:
        np.savez(tmp_path / "actions.npz", **arrays)
        return tmp_path / "actions.npz"

    return write


def poses_of(robot, q, link):
    return np.asarray(jax.jit(robot.link_poses)(q))[:, robot.link_index(link)]


def xyz_quat(poses):
    return np.asarray(jax.jit(se3.xyz_quat_from_pose)(poses))


def test_joints_in_any_order(robot, motion, save):
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    names = np.array(robot.joint_names)[order]
    for text in (names, names.astype("S")):
        q, report = read_actions(save(joint_names=text, q=motion[0][:, order]), robot)
        np.testing.assert_array_equal(q, motion[0])
        assert report is None


def test_poses_of_the_hand_and_of_a_named_link(robot, motion, save):
    q, hand, tool = motion
    for link, poses in ((None, hand), ("tool", tool)):
        path = save(ee_pose=xyz_quat(poses), gripper=2 * q[:, 7], q0=q[0])
        solved, report = read_actions(path, robot, ee_link=link)
        assert report is not None and report.reached.all()
        np.testing.assert_allclose(
            poses_of(robot, solved, link or "hand"), poses, atol=5e-4
        )
        np.testing.assert_allclose(solved[:, 7], q[:, 7], atol=1e-6)


def test_pose_changes_add_up(robot, motion, save):
    q, hand, _ = motion
    before = np.concatenate([hand[:1], hand[:-1]])
    turn = hand[:, :3, :3] @ before[:, :3, :3].swapaxes(1, 2)
    change = np.concatenate(
        [(hand - before)[:, :3, 3], jax.jit(se3.rotation_vector)(turn)], 1
    )
    solved, _ = read_actions(save(ee_delta=change, gripper=2 * q[:, 7], q0=q[0]), robot)
    np.testing.assert_allclose(poses_of(robot, solved, "hand"), hand, atol=5e-4)
    # Fingers stay as q0 has them where no opening is given.
    shuffled = save(ee_delta=change, q0=q[0][::-1], joint_names=robot.joint_names[::-1])
    solved, _ = read_actions(shuffled, robot)
    np.testing.assert_array_equal(solved[:, 7], q[0, 7])


def test_frames_out_of_reach_are_told(robot, motion, save):
    q, hand, _ = motion
    poses = xyz_quat(hand).copy()
    poses[4:6, 2] += 2.0
    path = save(ee_pose=poses, gripper=2 * q[:, 7], q0=q[0])
    with pytest.raises(InputError, match=r"hand misses 2 of 12 poses: frame 4 by 1\d\d\d"):
        read_actions(path, robot)
    solved, report = read_actions(path, robot, tolerance=3.0)
    assert report is not None and np.flatnonzero(~report.reached).tolist() == [4, 5]
    assert np.isfinite(solved).all()


BAD = {
    "joints unknown": dict(q=np.zeros((T, 8)), joint_names=[f"j{i}" for i in range(8)]),
    "q without joint_names": dict(q=np.zeros((T, 8))),
    "joint_names is int64": dict(q=np.zeros((T, 8)), joint_names=np.arange(8)),
    "need one of q, ee_pose": dict(qq=np.zeros((T, 8))),
    "q and ee_pose": dict(q=np.zeros((T, 8)), ee_pose=np.zeros((T, 7))),
    "need numbers": dict(ee_pose=np.zeros((T, 6)), gripper=np.zeros(T)),
    "complex128": dict(ee_pose=np.zeros((T, 7), complex), gripper=np.zeros(T)),
    "no gripper": dict(ee_pose=np.ones((T, 7))),
    "gripper: 3 frames, the end effector has 12": dict(
        ee_pose=np.ones((T, 7)), gripper=np.zeros(3)
    ),
    "0.2 m in frame 0, this one opens from 0 to 0.08 m": dict(
        ee_pose=np.ones((T, 7)), gripper=np.full(T, 0.2)
    ),
    "NaN or infinity, first at": dict(ee_pose=np.full((T, 7), np.nan), gripper=np.zeros(T)),
    "a quaternion of length 2": dict(ee_pose=np.ones((T, 7)), gripper=np.zeros(T)),
    "ee_delta without q0": dict(ee_delta=np.zeros((T, 6)), gripper=np.zeros(T)),
    "joint joint1 is 9 in frame 0": dict(
        ee_delta=np.zeros((T, 6)), gripper=np.zeros(T), q0=np.full(8, 9.0)
    ),
    "damaged .*allow_pickle": dict(q=np.array([{}], object), joint_names=["a"]),
    r"need numbers \[T, J\]": dict(q=np.zeros((0, 8)), joint_names=["a"]),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arrays(message, robot, save):
    with pytest.raises(InputError, match=message) as error:
        read_actions(save(**BAD[message]), robot)
    assert "actions.npz" in str(error.value) and "\n" not in str(error.value)


def test_bad_files_and_links(robot, motion, save, tmp_path):
    path = save(ee_pose=xyz_quat(motion[1]), gripper=np.zeros(T))
    for link in ("left_finger", "right_finger"):
        with pytest.raises(InputError, match=f"end effector {link} is part of the gripper"):
            read_actions(path, robot, ee_link=link)
    with pytest.raises(InputError, match="link 'nose' unknown"):
        read_actions(path, robot, ee_link="nose")
    with pytest.raises(InputError, match="no joint moves link link0"):
        read_actions(path, robot, ee_link="link0")
    with pytest.raises(InputError, match="cannot read it"):
        read_actions(tmp_path / "none.npz", robot)
    with pytest.raises(InputError, match="cannot read it"):
        read_actions(tmp_path, robot)
    (tmp_path / "empty.npz").touch()
    with pytest.raises(InputError, match="or cut short"):
        read_actions(tmp_path / "empty.npz", robot)


fuzz = hypothesis.settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
ARRAYS = hypothesis.extra.numpy.arrays(
    st.sampled_from(["f4", "f8", "i4", "u1", "?", "c8", "U3", "S3", "M8[s]"]),
    st.sampled_from([(), (0,), (T,), (8,), (T, 7), (T, 6), (T, 8), (T, 0), (T, 4, 4)]),
    fill=st.nothing(),
)


@fuzz
@hypothesis.given(
    st.dictionaries(
        st.sampled_from(["q", "ee_pose", "ee_delta", "gripper", "q0", "joint_names"]),
        ARRAYS,
    )
)
def test_any_arrays_end_in_joints_or_an_input_error(robot, save, arrays):
    ends_well(save(**arrays), robot)


@fuzz
@hypothesis.given(st.data())
def test_any_damage_ends_in_joints_or_an_input_error(robot, motion, save, data):
    q, hand, _ = motion
    path = save(ee_pose=xyz_quat(hand), gripper=2 * q[:, 7], q0=q[0])
    if data.draw(st.booleans()):  # one array, in a sound archive; else the archive itself
        name = data.draw(st.sampled_from(["ee_pose", "gripper", "q0"]))
        with zipfile.ZipFile(path) as file:
            members = {n: file.read(n) for n in file.namelist()}
        members[f"{name}.npy"] = damaged(members[f"{name}.npy"], data)
        with zipfile.ZipFile(path, "w") as file:
            for member, raw in members.items():
                file.writestr(member, raw)
    else:
        path.write_bytes(damaged(path.read_bytes(), data))
    ends_well(path, robot)


def damaged(raw: bytes, data) -> bytes:
    """Up to four bytes changed, more often near the front, and perhaps the end cut off."""
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, 127) | st.integers(0, len(raw) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(raw)) | st.integers(0, len(raw)))
    return bytes(changed[:cut])


def ends_well(path, robot):
    try:
        q, _ = read_actions(path, robot, tolerance=np.inf)
    except InputError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    else:
        assert q.dtype == np.float32 and q.shape[1] == 8 and np.isfinite(q).all()


def test_gripper_opening(robot):
    assert hand_link(robot) == "hand"
    gripper = gripper_of(robot)
    assert gripper is not None
    np.testing.assert_allclose(
        finger_joints(gripper, [0.0, 0.05, 0.08, 0.081]),
        [[0.0], [0.025], [0.04], [0.04]],
        atol=1e-6,
    )


@pytest.mark.skipif(not ROBOTS.exists(), reason="development robots are absent")
@pytest.mark.parametrize(
    ("path", "hand", "most", "open_at"),
    [
        ("panda_droid/franka_description/panda.urdf", "robotiq_85_base_link", 0.078, 0.0),
        ("widowx_bridge/wx250s.urdf", "fingers_link", 0.044, 0.037),
    ],
)
def test_hands_of_other_robots(path, hand, most, open_at):
    robot = load_robot(ROBOTS / path)
    gripper = gripper_of(robot)
    assert hand_link(robot) == hand and gripper is not None
    np.testing.assert_allclose(gripper.opening[-1], most, atol=1e-3)
    np.testing.assert_allclose(finger_joints(gripper, [most]), [[open_at]], atol=1e-2)
