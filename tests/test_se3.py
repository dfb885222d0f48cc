"""Rigid transforms against scipy, and against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from w4d_jax.kin import se3

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
    np.testing.assert_allclose(se3.rotation_from_quat(jnp.asarray(q)), R, atol=1e-6)
    np.testing.assert_allclose(se3.rotation_from_quat(3 * jnp.asarray(q)), R, atol=1e-6)
    ours = np.asarray(se3.quat_from_rotation(jnp.asarray(R)))
    assert (ours[:, 0] >= 0).all()
    # At half a turn q and -q are both right.
    assert np.abs(np.abs(np.sum(ours * q, -1)) - 1).max() < 1e-6


def test_vectors_go_round(rotations):
    R = jnp.asarray(rotations.as_matrix(), jnp.float32)
    back = se3.rotation_from_vector(se3.rotation_vector(R))
    np.testing.assert_allclose(back, R, atol=2e-6)
    np.testing.assert_allclose(se3.rotation_angle(R), rotations.magnitude(), atol=1e-3)


def test_inverse_and_transform(rotations):
    rng = np.random.default_rng(1)
    R = jnp.asarray(rotations.as_matrix(), jnp.float32)
    pose = se3.rigid(R, jnp.asarray(rng.normal(size=(len(R), 3)), jnp.float32))
    eye = jnp.broadcast_to(jnp.eye(4), pose.shape)
    np.testing.assert_allclose(se3.invert(pose) @ pose, eye, atol=2e-6)
    x = jnp.asarray(rng.normal(size=(len(R), 5, 3)), jnp.float32)
    back = se3.transform(se3.invert(pose), se3.transform(pose, x))
    np.testing.assert_allclose(back, x, atol=2e-6)
    again = se3.pose_from_xyz_quat(se3.xyz_quat_from_pose(pose))
    np.testing.assert_allclose(again, pose, atol=2e-6)


@pytest.mark.parametrize("v", [[0, 0, 0], [1e-9, 0, 0], [0.3, -0.2, 0.9]])
def test_exp_and_log_differentiate_everywhere(v):
    v = jnp.asarray(v, jnp.float32)
    J = jax.jacobian(lambda v: se3.rotation_vector(se3.rotation_from_vector(v)))(v)
    np.testing.assert_allclose(J, np.eye(3), atol=1e-3)
