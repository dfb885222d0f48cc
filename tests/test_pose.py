"""VGGT's camera encodings: round trips, invariances, conventions beside ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from w4d_jax.kin import camera, pose, se3

HEIGHT, WIDTH = 56, 70
encode = jax.jit(lambda cam, K: pose.encode_pose(cam, K, HEIGHT, WIDTH))
decode = jax.jit(lambda encoding: pose.decode_pose(encoding, HEIGHT, WIDTH))

slopes = jax.jit(jax.jacrev(se3.quat_from_rotation))


@pytest.fixture(scope="module")
def cameras():
    """cam_from_world f32[2,3,4,4], K f32[2,3,3,3], the principal point in the centre."""
    rng = np.random.default_rng(0)
    cam = np.tile(np.eye(4, dtype=np.float32), (2, 3, 1, 1))
    cam[..., :3, :3] = Rotation.random(6, rng=rng).as_matrix().reshape(2, 3, 3, 3)
    cam[..., :3, 3] = rng.normal(size=(2, 3, 3))
    K = np.zeros((2, 3, 3, 3), np.float32)
    K[..., 0, 0], K[..., 1, 1] = rng.uniform(40, 90, (2, 2, 3))
    K[..., 0, 2], K[..., 1, 2], K[..., 2, 2] = WIDTH / 2, HEIGHT / 2, 1
    return cam, K


def test_cameras_come_back(cameras):
    cam, K = cameras
    back, intrinsics = decode(encode(cam, K))
    np.testing.assert_allclose(back, cam, atol=2e-6)
    np.testing.assert_allclose(intrinsics, K, rtol=1e-6, atol=1e-5)


def test_length_and_sign_of_the_quaternion_mean_nothing(cameras):
    encoding = encode(*cameras)
    other = encoding.at[..., 3:7].multiply(-2.5)
    np.testing.assert_allclose(decode(other)[0], decode(encoding)[0], atol=2e-6)
    np.testing.assert_allclose(encode(*decode(other)), encoding, atol=2e-6)


@pytest.mark.parametrize("axis", np.eye(3))
@pytest.mark.parametrize("angle", [0.0, 1e-4, np.pi - 1e-4, np.pi])
def test_special_turns_encode_and_differentiate(axis, angle):
    cam = np.eye(4, dtype=np.float32)
    cam[:3, :3] = Rotation.from_rotvec(axis * angle).as_matrix()
    encoding = encode(cam, np.float32([[50, 0, 35], [0, 60, 28], [0, 0, 1]]))
    assert encoding[6] >= 0
    np.testing.assert_allclose(decode(encoding)[0], cam, atol=2e-6)
    assert np.isfinite(slopes(cam[:3, :3])).all()


def test_slope_of_a_quaternion_along_a_turn():
    """d R = [w] R moves q by (0, w) q / 2, the product of quaternions."""
    rng = np.random.default_rng(1)
    R = Rotation.random(20, rng=rng).as_matrix().astype(np.float32)
    turn = rng.normal(size=(20, 3)).astype(np.float32)
    along = np.stack([np.cross(turn, R[..., i]) for i in range(3)], -1)
    q, slope = jax.jit(lambda R, d: jax.jvp(se3.quat_from_rotation, (R,), (d,)))(R, along)
    w, v = np.asarray(q[:, :1]), np.asarray(q[:, 1:])
    vector = w * turn + np.cross(turn, v)
    expected = np.concatenate([-(turn * v).sum(-1, keepdims=True), vector], -1) / 2
    np.testing.assert_allclose(slope, expected, atol=2e-6)


def test_pixels_of_either_count_are_the_same_rays():
    K = np.float32([[50, 0, 33], [0, 60, 27], [0, 0, 1]])
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    theirs = np.stack([(x - 33) / 50, (y - 27) / 60, np.ones_like(x)], -1)
    ours = camera.pixel_rays(pose.from_integer_centres(jnp.asarray(K)), HEIGHT, WIDTH)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_scale_is_the_mean_distance_of_what_is_valid():
    points = np.zeros((2, 1, 2, 3, 3), np.float32)
    points[..., 2] = 4.0
    points[:, 0, 0, 0, 2] = 1000.0
    valid = points[..., 2] < 100
    valid[1] = False  # nothing to go by
    scale = np.asarray(jax.jit(pose.scene_scale)(points, valid))
    np.testing.assert_allclose(scale, [4.0, 1e-6], rtol=1e-3)


def test_world_becomes_the_first_camera(cameras):
    cam, _ = cameras
    relative = jax.jit(pose.from_first_view)(cam)
    np.testing.assert_allclose(relative[:, 0], np.tile(np.eye(4), (2, 1, 1)), atol=1e-6)
    x = np.random.default_rng(2).normal(size=(2, 1, 5, 3)).astype(np.float32)
    first = se3.transform(cam[:, :1], x)
    np.testing.assert_allclose(
        se3.transform(relative, first), se3.transform(cam, x), atol=2e-6
    )
