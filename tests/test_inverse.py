"""Inverse kinematics: what it finds is checked by forward kinematics, never by itself."""

from pathlib import Path

import jax
import numpy as np
import pytest

from w4d_jax.kin import load_robot, se3
from w4d_jax.kin.chain import chain_of, pose_and_jacobian
from w4d_jax.kin.inverse import inverse
from w4d_jax.types import InputError

ARM = Path(__file__).parents[1] / "w4d_jax" / "data" / "assets" / "panda_w4d.xml"
ROBOTS = Path(__file__).parents[2] / "shared" / "data" / "robots"


@pytest.fixture(scope="module")
def robot():
    return load_robot(ARM)


@pytest.fixture(scope="module")
def poses_of(robot):
    """Joints f32[N,J] -> tool poses f32[N,4,4]."""
    tool = robot.link_index("tool")
    kernel = jax.jit(lambda q: robot.link_poses(q)[..., tool, :, :])
    return lambda q: np.array(kernel(q))


def residual(poses, targets):
    """Distances in metres and angles in radians, in float64."""
    distance = np.linalg.norm((poses - targets)[..., :3, 3].astype(np.float64), axis=-1)
    a, b = (x[..., :3, :3].astype(np.float64) for x in (poses, targets))
    sine = np.linalg.norm(a - b, axis=(-2, -1)) / np.sqrt(8)
    return distance, 2 * np.arcsin(np.minimum(sine, 1.0))


def motion(robot, T, seed=0):
    """A smooth motion within limits, f32[T,J]."""
    rng = np.random.default_rng(seed)
    middle, half = robot.span.mean(1), 0.35 * np.ptp(robot.span, axis=1)
    a, b = rng.uniform(-half, half, (2, len(half)))
    share = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, T))[:, None]
    return (middle + a + share * (b - a)).astype(np.float32)


@pytest.mark.parametrize(
    ("path", "link"),
    [
        (ARM, "tool"),
        (ROBOTS / "widowx_bridge/wx250s.urdf", "left_finger_link"),
        (ROBOTS / "panda_droid/franka_description/panda.urdf", "left_inner_finger"),
    ],
    ids=["hinges", "slides", "mimics"],
)
def test_chain_moves_like_the_robot(path, link):
    if not path.exists():
        pytest.skip("development robots are absent")
    robot = load_robot(path)
    index = robot.link_index(link)
    joints, chain = chain_of(robot, link)
    q = robot.sample(64)
    pose, J = jax.jit(jax.vmap(pose_and_jacobian, (None, 0)))(chain, q[:, joints])
    kernel = lambda q: robot.link_poses(q)[index]  # noqa: E731
    change = jax.jit(jax.vmap(jax.jacfwd(kernel)))(q)
    truth = jax.jit(jax.vmap(kernel))(q)
    np.testing.assert_allclose(pose, truth, atol=2e-6)
    J_all = np.zeros((64, 6, q.shape[1]))
    J_all[:, :, joints] = J
    np.testing.assert_allclose(J_all[:, :3], change[:, :3, 3], atol=5e-6)
    spin = np.einsum("nikj,nlk->nilj", change[:, :3, :3], truth[:, :3, :3])
    spin = np.stack([spin[:, 2, 1], spin[:, 0, 2], spin[:, 1, 0]], 1)
    np.testing.assert_allclose(J_all[:, 3:], spin, atol=5e-6)


def test_random_reachable_poses(robot, poses_of):
    """1,000 here; 10,000 take `bench/inverse.py`: 99.9 % is the mark there."""
    truth = robot.sample(1000, seed=1)
    targets = poses_of(truth)
    found = inverse(robot, "tool", targets[:, None])
    q = found.q[:, 0]
    distance, angle = residual(poses_of(q), targets)
    ok = (distance <= 1e-3) & (angle <= np.deg2rad(0.5))
    assert ok.mean() >= 0.998
    np.testing.assert_array_equal(found.reached[:, 0], ok)
    np.testing.assert_allclose(found.position_error[:, 0], distance, atol=2e-6)
    np.testing.assert_allclose(found.rotation_error[:, 0], angle, atol=2e-4)
    np.testing.assert_array_equal(q, np.clip(q, *robot.limits.T.astype(np.float32)))
    np.testing.assert_array_equal(q[:, 7], robot.neutral[7])  # fingers do not help


def test_sequence_follows_its_seed(robot, poses_of):
    truth = motion(robot, 20, seed=1)
    targets = poses_of(truth)
    found = inverse(robot, "tool", targets, truth[0])
    assert found.reached.all()
    assert np.abs(found.q[0] - truth[0]).max() < 1e-3
    assert np.abs(np.diff(found.q, axis=0)).max() < 3 * np.abs(np.diff(truth, axis=0)).max()
    quat = np.asarray(jax.jit(se3.xyz_quat_from_pose)(targets))
    again = inverse(robot, "tool", quat, truth[0])
    np.testing.assert_allclose(again.q, found.q, atol=2e-3)
    both = inverse(robot, "tool", np.stack([targets, targets[::-1]]), truth[[0, -1]])
    np.testing.assert_allclose(both.q[0], found.q, atol=1e-3)
    assert both.q.shape == (2, 20, 8) and both.reached.all()


def test_out_of_reach_is_said_and_nearest(robot, poses_of):
    truth = motion(robot, 20, seed=3)
    targets = poses_of(truth)
    targets[12:15, 2, 3] += 2.0
    found = inverse(robot, "tool", targets, truth[0])
    assert np.flatnonzero(~found.reached).tolist() == [12, 13, 14]
    assert all(np.isfinite(a).all() for a in found)
    distance, angle = residual(poses_of(found.q), targets)
    np.testing.assert_allclose(found.position_error, distance, atol=1e-5)
    # No random posture is nearer than the one found.
    gap, turn = residual(poses_of(robot.sample(20000, seed=5)), targets[13])
    assert np.hypot(distance, 0.115 * angle)[13] < np.hypot(gap, 0.115 * turn).min()


def test_limits_hold_where_they_bind(robot, poses_of):
    """Targets from a robot at its very limits, and beyond them."""
    q = robot.sample(16, seed=6)
    q[:, 3], q[8:, 5] = robot.limits[3, 1], robot.limits[5, 0]
    within = inverse(robot, "tool", poses_of(q)[:, None])
    assert within.reached.all()
    q[:, 3] += 0.6
    beyond = inverse(robot, "tool", poses_of(q)[:, None])
    q = np.concatenate([within.q, beyond.q])
    np.testing.assert_array_equal(q, np.clip(q, *robot.limits.T.astype(np.float32)))


@pytest.mark.parametrize(
    ("targets", "q0", "message"),
    [
        (np.zeros((4, 6)), None, r"shape \(4, 6\), need \[T,7\] or \[T,4,4\]"),
        (np.zeros((0, 7)), None, r"shape \(0, 7\)"),
        (np.full((4, 7), np.nan), None, "NaN or infinity"),
        (np.zeros((4, 7)), None, "quaternion of length 0"),
        (np.zeros((4, 4, 4)), None, "not rotations"),
        (np.eye(4)[None], np.zeros(5), r"need \[T, 8\]"),
        (np.eye(4)[None], np.full(8, 9.0), "joint joint1 is 9"),
        (np.eye(4)[None], np.zeros((3, 8)), r"q0: shape \(3, 8\)"),
    ],
)
def test_bad_input(robot, targets, q0, message):
    with pytest.raises(InputError, match=message):
        inverse(robot, "tool", targets, q0)
