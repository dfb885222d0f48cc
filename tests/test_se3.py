"""Rigid transforms against scipy, and against each other."""

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from w4d_jax.kin import se3

# Each as one program: compiled number by number they take ten times as long.
rotation_from_quat = jax.jit(se3.rotation_from_quat)
quat_from_rotation = jax.jit(se3.quat_from_rotation)


@jax.jit
def vector_and_back(R):
    v = se3.rotation_vector(R)
    return se3.rotation_from_vector(v), se3.rotation_angle(R)


@jax.jit
def round_trips(R, t, x):
    """A pose times its inverse; x there and back; the pose through xyz and quaternion."""
    pose = se3.rigid(R, t)
    back = se3.transform(se3.invert(pose), se3.transform(pose, x))
    again = se3.pose_from_xyz_quat(se3.xyz_quat_from_pose(pose))
    return se3.invert(pose) @ pose, back, again - pose


@jax.jit
@jax.jacobian
def slope(v):
    return se3.rotation_vector(se3.rotation_from_vector(v))


# Angles near 0 and pi are where logarithms and quaternions go wrong.
ANGLES = [0.0, 1e-7, 1e-3, 0.5, 2.0, np.pi - 1e-3, np.pi - 1e-6]


@pytest.fixture(scope="module")
def rotations():
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(len(ANGLES), 50, 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    return Rotation.from_rotvec((axes * np.array(ANGLES)[:, None, None]).reshape(-1, 3))


def test_quaternions_agree_with_scipy(rotations):
    R = rotations.as_matrix().astype(np.float32)
    q = rotations.as_quat(canonical=True, scalar_first=True)
    np.testing.assert_allclose(rotation_from_quat(q), R, atol=1e-6)
    np.testing.assert_allclose(rotation_from_quat(3 * q), R, atol=1e-6)
    ours = np.asarray(quat_from_rotation(R))
    assert (ours[:, 0] >= 0).all()
    # At half a turn q and -q are both right.
    assert np.abs(np.abs(np.sum(ours * q, -1)) - 1).max() < 1e-6


def test_vectors_go_round(rotations):
    R = rotations.as_matrix().astype(np.float32)
    back, angle = vector_and_back(R)
    np.testing.assert_allclose(back, R, atol=2e-6)
    np.testing.assert_allclose(angle, rotations.magnitude(), atol=1e-3)


def test_inverse_and_transform(rotations):
    rng = np.random.default_rng(1)
    R = rotations.as_matrix().astype(np.float32)
    t, x = (rng.normal(size=(len(R), *n, 3)).astype(np.float32) for n in ((), (5,)))
    product, back, moved = round_trips(R, t, x)
    np.testing.assert_allclose(product, np.tile(np.eye(4), (len(R), 1, 1)), atol=2e-6)
    np.testing.assert_allclose(back, x, atol=2e-6)
    np.testing.assert_allclose(moved, 0, atol=2e-6)


@pytest.mark.parametrize("v", [[0, 0, 0], [1e-9, 0, 0], [0.3, -0.2, 0.9]])
def test_exp_and_log_differentiate_everywhere(v):
    np.testing.assert_allclose(slope(np.float32(v)), np.eye(3), atol=1e-3)
