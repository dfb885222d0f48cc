"""Targets in one frame and unit; losses where the golden file does not look."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scenes import scene
from scipy.spatial.transform import Rotation

from w4d_jax.kin.match import Seen, exact_pairs
from w4d_jax.kin.pose import decode_pose
from w4d_jax.nets.vggt.model import Geometry
from w4d_jax.train.defects import NO_DEFECTS, RELEASED, Defects
from w4d_jax.train.dense_loss import dense_loss, edges, normals
from w4d_jax.train.geometry_losses import LossConfig, objective, pose_error
from w4d_jax.train.geometry_targets import checked_poses, targets, unit_of
from w4d_jax.train.pose_loss import as_written, pose_loss
from w4d_jax.types import InputError

SIZE = 20, 28  # of the wrist image
aim_at = jax.jit(targets, static_argnames="defects")
cost_of_poses = jax.jit(pose_loss, static_argnames="difference")


@pytest.fixture(scope="module")
def views():
    """B = 1."""
    return tuple(Seen(*(x[None] for x in seen)) for seen in scene())


@pytest.fixture(scope="module")
def aim(views):
    return jax.device_get(aim_at(*views))


@pytest.fixture(scope="module")
def pairs(views):
    one = tuple(Seen(*(x[0] for x in seen)) for seen in views)
    found = jax.jit(exact_pairs, static_argnums=3)(jax.random.key(0), *one, 64)
    return jax.tree.map(lambda x: np.asarray(x)[None], found)


@jax.jit
def cost(aim, pairs, shift=0.0):
    """Of one who says the truth, the wrist's quaternion in its other sign at last, and its
    place off by a shift."""
    other = aim.wrist * jnp.array([1, 1, 1, -1, -1, -1, -1, 1, 1]) + shift * jnp.eye(9)[0]
    certain = jnp.ones(aim.depth.shape)
    said = Geometry(
        pose=jnp.stack([aim.pose] * 2),
        wrist=jnp.stack([aim.wrist, other]),
        depth=aim.depth,
        depth_confidence=certain,
        points=aim.points,
        points_confidence=certain,
    )
    config = LossConfig(camera=1, wrist_parts=(1, 1, 1), depth=1, points=1)
    return objective(said, aim, pairs, SIZE, config)


def test_the_truth_costs_nothing(aim, pairs):
    total, terms = jax.device_get(cost(aim, pairs))
    assert terms["spc_pairs"] == 64 and terms["spc_behind"] == 0
    assert terms["camera"] == terms["wrist"] == terms["depth"] == 0
    assert 0 <= terms["projection"] < 1e-8 and abs(terms["points"]) < 1e-6
    assert total == pytest.approx(terms["projection"] + terms["points"], abs=1e-9)
    total, terms = jax.device_get(cost(aim, pairs, 0.3))
    assert terms["wrist"] == pytest.approx(0.3 / 3 / 2, rel=1e-5)
    assert terms["projection"] > 0.01 and total > 10 * terms["wrist"]


def test_the_projection_teaches_the_pose_and_not_the_points(aim, pairs):
    def project(wrist, points):
        said = Geometry(wrist=wrist[None], points=points)
        return objective(said, aim, pairs, SIZE, LossConfig(camera=0, wrist=0))[0]

    by_pose, by_points = jax.jit(jax.grad(project, (0, 1)))(aim.wrist + 0.1, aim.points)
    assert np.abs(by_pose).max() > 0.01 and not by_points.any()


def test_the_truth_of_the_released_code_costs(views, pairs):
    """Its poses are metric and its points are not; it moves anchors twice."""
    wrong = aim_at(*views, defects=Defects(metric_poses=True))
    assert cost(wrong, pairs)[1]["projection"] > 1e-3
    aim, wrong = aim_at(*views), aim_at(*views, defects=Defects(moved_twice=True))
    np.testing.assert_array_equal(wrong.pose[:, 0], aim.pose[:, 0])
    np.testing.assert_array_equal(wrong.wrist, aim.wrist)
    first = np.linalg.inv(views[0].cam_from_world[0, 0].astype(np.float64))
    twice = views[0].cam_from_world[0, 1] @ first @ first
    pose, _ = decode_pose(wrong.pose[0, 1], 24, 32)
    np.testing.assert_allclose(pose[:3, :3], twice[:3, :3], atol=1e-5)
    np.testing.assert_allclose(pose[:3, 3] * wrong.unit, twice[:3, 3], atol=1e-5)


def test_a_scene_in_other_metres_and_another_world_is_the_same_scene(views, aim):
    turn = np.array([[0, -1, 0, 3], [1, 0, 0, -2], [0, 0, 1, 1], [0, 0, 0, 1]], np.float32)

    def moved(seen):
        pose = seen.cam_from_world @ turn
        pose[..., :3, 3] *= 2.5
        return Seen(2.5 * seen.depth, seen.K, pose)

    other = aim_at(*map(moved, views))
    np.testing.assert_allclose(other.unit, 2.5 * aim.unit, rtol=1e-5)
    for name in ("pose", "wrist", "depth", "points"):
        np.testing.assert_allclose(getattr(other, name), getattr(aim, name), atol=1e-5)


def test_the_unit_of_a_trained_network_is_found(views, aim):
    """Half a metre is 1 to it, and some of its points are far off."""
    said = aim.points * aim.unit / 0.5
    said[:, :, ::5] *= 7
    unit = unit_of(said, aim.points * aim.unit, aim.valid)
    np.testing.assert_allclose(unit, 0.5, rtol=1e-5)
    again = aim_at(*views, unit)
    assert again.sure.all()
    np.testing.assert_allclose(again.depth, views[0].depth / 0.5, rtol=1e-5)
    assert np.isnan(unit_of(said, said, np.zeros_like(aim.valid))).all()


def test_samples_without_points_are_left_out_of_the_poses(views):
    two = tuple(Seen(*(np.concatenate([x, x]) for x in seen)) for seen in views)
    two[0].depth[1] = 0
    aim = aim_at(*two)
    assert aim.sure.tolist() == [True, False]
    off = np.array([1, np.inf], np.float32)[:, None, None]
    steps = np.stack([aim.pose + off] * 2)
    loss = cost_of_poses(steps, aim.pose, aim.sure[:, None])
    assert float(loss.translation) == pytest.approx((1 + 0.6) / 2)
    assert cost_of_poses(steps, aim.pose, np.zeros((2, 1), bool)) == (0, 0, 0)


def test_a_pose_that_was_not_recorded_is_refused():
    poses = np.tile(np.eye(4, dtype=np.float32), (3, 2, 1, 1))
    poses[1, 1, 0, 3] = np.nan
    with pytest.raises(InputError, match=r"ext2: 1 of 6 poses .* first at \[1, 1\]"):
        checked_poses(poses, "ext2")
    np.testing.assert_array_equal(checked_poses(poses, "ext2", RELEASED)[1, 1], np.eye(4))
    assert checked_poses(poses[:1], "ext2") is not None


def test_the_pose_error_is_that_of_place_and_turn(aim):
    """By its formula in float64; the turn that is said learns nothing from the place."""
    rng = np.random.default_rng(3)
    said = (aim.wrist * (-1) ** rng.integers(0, 2)).astype("f4")
    said = said + 0.2 * rng.normal(size=(3, *said.shape)).astype("f4")

    def place(encoding):
        rotation = Rotation.from_quat(encoding[..., 3:7].reshape(-1, 4)).as_matrix()
        t = np.float64(encoding[..., :3].reshape(-1, 3))
        return -np.einsum("nji,nj->ni", rotation, t).reshape(*encoding.shape[:-1], 3)

    def turn(encoding):
        return np.float64(encoding[..., 3:7])

    true = turn(aim.wrist)
    near = np.minimum(*(np.square(turn(said) - q).sum(-1) for q in (true, -true)))
    square = np.square(place(said) - place(aim.wrist)).sum(-1) + near
    expected = np.array([0.36, 0.6, 1]) / 3 @ square.mean(-1)
    value, slope = jax.jit(jax.value_and_grad(pose_error))(jnp.asarray(said), aim)
    np.testing.assert_allclose(value, expected, rtol=1e-5)

    moved = said + np.array([0.1, -0.2, 0.3, 0, 0, 0, 0, 0, 0], "f4")
    other = jax.jit(jax.grad(pose_error))(jnp.asarray(moved), aim)
    np.testing.assert_allclose(other[..., 3:], slope[..., 3:], atol=1e-6)
    assert np.abs(other[..., :3] - slope[..., :3]).max() > 0.01
    assert not np.any(slope[..., 7:])
    assert pose_error(jnp.stack([aim.wrist]), aim) < 1e-10


def test_a_rotation_has_two_quaternions():
    target = np.array([[0.1, 0.2, 0.3, 0.5, 0.5, 0.5, 0.5, 1, 1]], np.float32)
    steps = (target * [1, 1, 1, -1, -1, -1, -1, 1, 1])[None].astype(np.float32)
    assert cost_of_poses(steps, target).rotation == 0
    assert cost_of_poses(steps, target, difference=as_written).rotation == 1


@pytest.mark.parametrize("slope", [edges, normals])
def test_dense_gradients_are_finite_where_errors_and_triangles_vanish(slope):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 12, 16, 3)).astype(np.float32)
    x[:, 4:8] = x[:, :1, :1]  # many points in one place
    x[:, 8:, :, 1:] = 0  # and in one line
    target, confidence = x.copy(), np.full(x.shape[:-1], 2, np.float32)
    target[:, ::3] += 0.5
    target[0, 0, 0] = np.nan
    valid = np.isfinite(target).all(-1)

    @jax.jit
    @jax.value_and_grad
    def total(x, target, valid):
        bound = partial(slope, scales=2)
        return dense_loss(x, confidence, target, valid, slope=bound, quantile=0.98).total

    value, gradient = total(x, target, valid)
    assert np.isfinite(value) and value > 0 and np.isfinite(gradient).all()
    valid[:, 6:] = False  # too few count for nothing
    value, gradient = total(x, target, valid)
    assert value == 0 and not np.any(gradient)


def test_without_a_mask_all_pixels_count():
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(2, 1, 12, 16, 3)).astype(np.float32)
    confidence = rng.uniform(1, 2, x.shape[:-1]).astype(np.float32)
    loss = jax.device_get(jax.jit(dense_loss)(x, confidence, target))
    error = np.linalg.norm((x - target).astype(np.float64), axis=-1)
    expected = (error * confidence - 0.2 * np.log(confidence)).mean()
    np.testing.assert_allclose(loss, (expected, error.mean(), 0), rtol=1e-6)


def test_the_switches_are_off_by_default_and_each_has_a_name():
    assert not any(dataclasses.astuple(NO_DEFECTS)) and all(dataclasses.astuple(RELEASED))
    assert LossConfig().defects is NO_DEFECTS
