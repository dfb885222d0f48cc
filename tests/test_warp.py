"""Condition maps: the released renderer against painting, ours against ray casting."""

import jax
import numpy as np
import pytest
from scenes import cast, scene

from w4d_jax.kin.camera import pointmap, to_world
from w4d_jax.kin.render import SceneView
from w4d_jax.kin.splat import released_map
from w4d_jax.kin.warp import Anchors, Warped, condition_map, trusted, with_robot
from w4d_jax.types import Camera


def paint(points, colors, camera: Camera, pose):
    """The released renderer from its description: float64, one point after the other."""
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    R, t = pose[:3, :3].astype(np.float64), pose[:3, 3].astype(np.float64)
    seen = []
    for point, color in zip(points.astype(np.float64), colors, strict=True):
        x, y, z = R @ point + t
        if z > 0.01:
            u, v = (camera.K.astype(np.float64) @ [x / z, y / z, 1])[:2]
            if 0 <= u < camera.width and 0 <= v < camera.height:
                seen.append((z, int(u), int(v), (255 * color).astype(np.uint8)))
    for _, column, row, color in sorted(seen, key=lambda x: -x[0]):
        for i in range(camera.height):
            for j in range(camera.width):
                if abs(i - row) + abs(j - column) <= 2:
                    image[i, j] = color
    return image


def test_the_released_map_is_what_painting_far_to_near_gives():
    """A moving camera, frames of their own, points on every side of it."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (3, 150, 3)).astype(np.float32)
    colors = rng.uniform(0, 1, (3, 150, 3)).astype(np.float32)
    poses = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    poses[:, :3, 3] = rng.uniform(-0.2, 0.2, (3, 3))
    K = np.array([[14, 0, 10], [0, 15, 8], [0, 0, 1]], np.float32)
    camera = Camera(20, 16, K, poses)
    drawn = jax.device_get(released_map(points, colors, camera))
    for t in range(3):
        expected = paint(points[t], colors[t], camera, poses[t])
        np.testing.assert_array_equal(drawn.rgb[t], expected)
    assert 0.2 < (drawn.index >= 0).mean() < 0.95
    np.testing.assert_array_equal(drawn.depth > 0, drawn.index >= 0)


@pytest.fixture(scope="module")
def case():
    """Two frames of two anchors, and the true depth of the wrist camera's pixels."""
    anchors, wrist = scene()
    points = np.stack(
        [
            np.asarray(to_world(np.asarray(pointmap(depth, K))[None], pose))[0]
            for depth, K, pose in zip(*anchors, strict=True)
        ]
    )
    eyes = np.linalg.inv(anchors.cam_from_world)[:, :3, 3]
    rgb = np.where(points[..., 2:] > 0.05, [200, 40, 0], [90, 90, 90]).astype(np.uint8)
    twice = Anchors(points, rgb, anchors.depth > 0, eyes.astype(np.float32))
    twice = Anchors(*(np.stack([x, x]) for x in twice))
    camera = Camera(28, 20, wrist.K, np.stack([wrist.cam_from_world] * 2))
    return twice, camera, wrist


def test_our_map_has_the_surface_that_the_camera_sees(case):
    anchors, camera, wrist = case
    drawn = jax.device_get(condition_map(anchors, camera))
    rgb, depth, mask = (x[0] for x in drawn)
    np.testing.assert_array_equal(drawn.depth[0], drawn.depth[1])
    assert mask.mean() > 0.8
    np.testing.assert_array_equal(mask, depth > 0)
    right = mask & (np.abs(depth - wrist.depth) < 2e-3 * wrist.depth)
    assert right.sum() > 0.9 * mask.sum()  # a card's edge falls between pixels
    v, u = np.mgrid[:20, :28] + 0.5
    sure = right.copy()
    for du, dv in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        beside = cast(camera.K, camera.cam_from_world[0], u + du, v + dv)
        sure &= np.abs(beside - wrist.depth) < 0.05  # no edge nearby
    expected = np.where((wrist.depth < 0.42)[..., None], [200, 40, 0], [90, 90, 90])
    red = sure & (np.abs(rgb.astype(int) - expected).max(-1) < 30)
    assert red.sum() > 0.97 * sure.sum() > 200
    assert not rgb[~mask].any()


def test_what_is_not_believed_or_behind_the_camera_is_not_there(case):
    anchors, camera, _ = case
    nothing = anchors._replace(
        valid=np.zeros_like(anchors.valid), points=np.full_like(anchors.points, np.nan)
    )
    away = np.diag([-1, 1, -1, 1]).astype(np.float32) @ camera.cam_from_world
    cameras = camera, Camera(28, 20, camera.K, away)
    for given, seen_by in zip((nothing, anchors), cameras, strict=True):
        drawn = jax.device_get(condition_map(given, seen_by))
        assert not any(x.any() for x in drawn)
    # A frame's least trusted pixels go, whichever view they are in.
    confidence = np.arange(2 * 2 * 4 * 5.0).reshape(2, 2, 4, 5) % 40
    np.testing.assert_array_equal(trusted(confidence, 0.75), confidence >= 9.75)


def test_the_robot_stands_before_and_behind_what_is_known():
    zero = np.zeros((1, 1, 4), np.float32)
    known = Warped(
        np.full((1, 1, 4, 3), 51, np.uint8),
        np.array([[[1, 1, 0, 0]]], np.float32),
        np.array([[[True, True, False, False]]]),
    )
    depth = np.array([[[0.5, 2, 3, 0]]], np.float32)
    robot = SceneView(np.full((1, 1, 4, 3), 255, np.uint8), depth, zero)
    both = with_robot(known, robot)
    assert both.depth.ravel().tolist() == [0.5, 1, 3, 0]
    assert both.rgb[..., 0].ravel().tolist() == [255, 51, 255, 51]
    assert both.mask.ravel().tolist() == [True, True, True, False]
