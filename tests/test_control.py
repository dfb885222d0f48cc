"""The control signal: metres to (-1, 1) and back, known before anything moves."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w4d_jax.kin import Camera, control, load_robot
from w4d_jax.kin.camera import pointmap
from w4d_jax.kin.control import FAR, KNEE, NO_ROBOT, Normaliser, normaliser
from w4d_jax.types import InputError

ROBOTS = Path(__file__).parents[2] / "shared" / "data" / "robots"
K = np.array([[60.0, 0.0, 32.0], [0.0, 60.0, 24.0], [0.0, 0.0, 1.0]], np.float32)
normalise = jax.jit(control.normalise)
denormalise = jax.jit(control.denormalise)
UNIT = Normaliser(np.zeros(3, np.float32), np.float32(1.0))


def camera_at(eye, toward=(0.0, 0.0, 0.3), width=64, height=48) -> Camera:
    """A camera at `eye` that looks toward a point, z of the world up."""
    eye, toward = np.asarray(eye, np.float64), np.asarray(toward, np.float64)
    z = (toward - eye) / np.linalg.norm(toward - eye)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = R, -R @ eye
    return Camera(width, height, K, pose.astype(np.float32))


@pytest.mark.parametrize(("radius", "tolerance"), [(1.0, 2e-6), (8.0, 1e-4), (20.0, 6e-4)])
def test_metres_come_back(radius, tolerance):
    rng = np.random.default_rng(0)
    for _ in range(20):
        scale = rng.uniform(0.3, 1.3)
        norm = Normaliser(rng.uniform(-2, 2, 3).astype(np.float32), np.float32(scale))
        offset = rng.uniform(-radius, radius, (5000, 3)) * scale
        points = (norm.center + offset).astype(np.float32)
        assert np.abs(denormalise(normalise(points, norm), norm) - points).max() < tolerance


def test_squash_is_smooth_odd_and_increasing():
    squash = lambda x: normalise(jnp.full(3, x), UNIT)[0]  # noqa: E731
    slope = jax.jit(jax.vmap(jax.grad(squash)))
    for knee in (-1.0, 1.0):
        near = np.float32(knee) + np.float32([-1e-4, 0.0, 1e-4])
        np.testing.assert_allclose(slope(near), KNEE, rtol=1e-3)
    x = np.concatenate(
        [-np.geomspace(800, 1e-3, 4000), [0.0], np.geomspace(1e-3, 800, 4000)]
    )
    n = np.asarray(normalise(x[:, None].astype(np.float32), UNIT))[:, 0]
    assert (np.diff(n) > 0).all() and np.abs(n).max() < 1.0
    np.testing.assert_array_equal(n, -n[::-1])
    inside = np.abs(x) <= 1
    np.testing.assert_allclose(n[inside], KNEE * x[inside], rtol=1e-6)


def test_anything_a_network_gives_is_a_finite_point():
    n = jnp.array([-np.inf, -5.0, -1.0, 0.0, 1.0, 1.0000001, 5.0, np.inf])[:, None]
    far = np.asarray(denormalise(n, UNIT))
    assert np.isfinite(far).all() and (np.diff(far[:, 0]) >= 0).all()
    gradient = jax.jit(jax.grad(lambda n: denormalise(n, UNIT).sum()))(n[1:-1])
    assert np.isfinite(gradient).all()


def test_signal_marks_what_is_not_robot():
    rng = np.random.default_rng(1)
    depth = rng.uniform(0.5, 1.5, (3, 48, 64)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.5] = 0.0
    norm = normaliser(0.8, camera_at((1.0, 0.2, 0.8)))
    n, mask = jax.jit(control.control_signal)(depth, K, norm)
    np.testing.assert_array_equal(mask, depth > 0)
    assert (np.asarray(n)[depth == 0] == NO_ROBOT).all()
    back = np.asarray(denormalise(n, norm))[depth > 0]
    points = np.asarray(jax.jit(pointmap)(depth, K))[depth > 0]
    np.testing.assert_allclose(back, points, atol=1e-5)


def test_unknown_depth_is_far_along_its_ray():
    norm = normaliser(0.8, camera_at((1.0, 0.2, 0.8)))
    n = jax.jit(control.scene_pointmap)(jnp.array([[[0.0, 1.0], [1.0, 0.0]]]), K, norm)
    assert np.abs(n).max() < 1.0
    points = denormalise(n, norm)
    np.testing.assert_allclose(points[0, 0, 0, 2], FAR, rtol=0.01)
    np.testing.assert_allclose(points[0, 0, 1, 2], 1.0, atol=1e-5)


def test_every_frame_and_clip_at_once():
    depth = jnp.ones((2, 4, 8, 8))
    norm = Normaliser(jnp.zeros((2, 3)), jnp.ones(2))
    n, mask = jax.eval_shape(jax.vmap(control.control_signal, (0, None, 0)), depth, K, norm)
    assert n.shape == (2, 4, 8, 8, 3) and mask.shape == (2, 4, 8, 8)


def test_nothing_from_the_future():
    rng = np.random.default_rng(2)
    first = camera_at((1.0, 0.2, 0.8))
    poses = np.stack([first.cam_from_world] * 5)
    before = normaliser(0.8, first)
    poses[1:, :3, :3] = np.linalg.qr(rng.normal(size=(4, 3, 3)))[0]
    poses[1:, :3, :3] *= np.linalg.det(poses[1:, :3, :3])[:, None, None]
    poses[1:, :3, 3] = rng.normal(size=(4, 3))
    after = normaliser(0.8, Camera(64, 48, K, poses))
    np.testing.assert_array_equal(before.center, after.center)
    assert before.scale == after.scale


@pytest.mark.parametrize(
    ("eye", "toward", "side"),
    [
        ((2.0, 0.0, 0.3), (4.0, 0.0, 0.3), "behind it by 2.00 m"),
        ((4.0, 0.0, 0.3), (4.0, 4.0, 0.3), "left of it"),
        ((4.0, 0.0, 0.3), (4.0, -4.0, 0.3), "right of it"),
        ((4.0, 0.0, 0.3), (3.9, 0.0, 4.0), "below it"),
        ((4.0, 0.0, 0.3), (3.9, 0.0, -4.0), "above it"),
    ],
)
def test_camera_that_cannot_see_the_robot(eye, toward, side):
    with pytest.raises(InputError, match=f"reach of 0.80 m.*{side}"):
        normaliser(0.8, camera_at(eye, toward))


def test_camera_inside_the_reach_sees_it_whichever_way_it_looks():
    for toward in ((1.0, 0.0, 0.3), (-1.0, 0.3, 0.4)):
        normaliser(0.8, camera_at((0.3, 0.0, 0.4), toward))


def farthest(triangles, poses, count=1000):
    """Of a robot with its links at poses f[T,L,4,4] the corners f[T,count,3] that lie
    farthest from its base: where these stay inside, all do."""
    found = []
    for pose in poses:
        R, t = pose[triangles.link, :3, :3], pose[triangles.link, None, :3, 3]
        corners = (triangles.corners @ R.swapaxes(1, 2) + t).reshape(-1, 3)
        distance = np.linalg.norm(corners, axis=1)
        found.append(corners[np.argpartition(distance, -count)[-count:]])
    return np.stack(found)


@pytest.mark.skipif(not ROBOTS.exists(), reason="development robots are absent")
@pytest.mark.parametrize(
    "path", sorted(ROBOTS.rglob("*.urdf")) if ROBOTS.exists() else [], ids=lambda p: p.stem
)
def test_robot_stays_in_the_linear_part(path):
    robot = load_robot(path)
    rng = np.random.default_rng(3)
    poses = np.asarray(robot.link_poses(robot.sample(8, seed=4)))
    world = farthest(robot.triangles, poses)
    for _ in range(4):
        eye = rng.normal(size=3)
        fixed = camera_at(eye / np.linalg.norm(eye) * rng.uniform(0.5, 3.0))
        norm = normaliser(robot.reach, fixed)
        R, t = fixed.cam_from_world[:3, :3], fixed.cam_from_world[:3, 3]
        n = normalise(jnp.asarray(world @ R.T + t, jnp.float32), norm)
        assert np.abs(n).max() <= KNEE
        # A camera that has moved by `away` since shows its robot at most so far out.
        away = rng.normal(size=3).astype(np.float32)
        n = normalise(jnp.asarray(world @ R.T + t + away, jnp.float32), norm)
        edge = normalise(np.full(3, 1 + np.linalg.norm(away) / robot.reach), UNIT)[0]
        assert np.abs(n).max() <= edge
