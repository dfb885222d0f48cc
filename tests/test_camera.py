"""Cameras: files, and the maps between depth, points and pixels."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w4d_jax.kin import Camera, InputError, se3
from w4d_jax.kin.camera import (
    ground_depth,
    pixel_rays,
    pointmap,
    project,
    to_camera,
    to_world,
)

K = np.array([[70.0, 0.5, 30.0], [0, 80.0, 25.0], [0, 0, 1]], np.float32)
TURN = np.asarray(se3.rotation_from_vector(jnp.array([0.4, -2.0, 0.7])))
POSE = np.asarray(se3.rigid(jnp.asarray(TURN), jnp.array([0.1, -0.2, 1.5])))
ENTRY = {"width": 64, "height": 48, "K": K.tolist(), "cam_from_world": POSE.tolist()}


def test_json_round_trip(tmp_path):
    for pose in (POSE, np.stack([POSE, np.eye(4, dtype=np.float32)])):
        Camera(64, 48, K, pose).to_json(tmp_path / "cam.json")
        camera = Camera.from_json(tmp_path / "cam.json")
        assert (camera.width, camera.height) == (64, 48)
        np.testing.assert_array_equal(camera.K, K)
        np.testing.assert_array_equal(camera.cam_from_world, pose)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"width": 0}, "width 0, need 1..16384"),
        ({"height": 48.5}, "height 48.5"),
        ({"K": [[1, 0], [0, 1]]}, r"K: shape \(2, 2\), need 3x3"),
        ({"K": [[-70, 0, 30], [0, 80, 25], [0, 0, 1]]}, "focal lengths -70, 80"),
        ({"K": [[70, 0, 30], [0, 80, 25], [0, 0, 2]]}, r"need .*\[0, 0, 1\]"),
        ({"cam_from_world": (2 * POSE).tolist()}, "not a rotation"),
        ({"cam_from_world": np.diag([1, 1, -1, 1]).tolist()}, "not a rotation"),
        ({"cam_from_world": [[float("nan")] * 4] * 4}, "NaN"),
        ({"cam_from_world": "pose"}, "not a matrix"),
    ],
)
def test_a_file_that_is_no_camera_is_named(tmp_path, change, says):
    path = tmp_path / "cam.json"
    path.write_text(json.dumps(ENTRY | change))
    with pytest.raises(InputError, match=f"cam.json: .*{says}") as caught:
        Camera.from_json(path)
    assert "\n" not in str(caught.value)


def test_missing_keys_and_files_are_named(tmp_path):
    (tmp_path / "cam.json").write_text('{"width": 64, "height": 48}')
    with pytest.raises(InputError, match="missing K, cam_from_world"):
        Camera.from_json(tmp_path / "cam.json")
    with pytest.raises(InputError, match=r"nowhere\.json: cannot read"):
        Camera.from_json(tmp_path / "nowhere.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
    lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=4), x, max_size=3),
    max_leaves=12,
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(key=st.sampled_from([*ENTRY]), value=JSON, cut=st.integers(0, 400) | st.none())
def test_any_json_is_a_camera_or_an_input_error(tmp_path_factory, key, value, cut):
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    path.write_text(json.dumps(ENTRY | {key: value})[:cut])
    try:
        Camera.from_json(path)
    except InputError as error:
        assert "\n" not in str(error)


def test_depth_points_and_pixels_are_inverses():
    rng = np.random.default_rng(0)
    depth = jnp.asarray(rng.uniform(0.2, 5, (2, 48, 64)), jnp.float32)
    points = pointmap(depth, K)
    np.testing.assert_allclose(points[..., 2], depth)
    i, j = np.mgrid[:48, :64]
    centres = np.broadcast_to(np.stack([j + 0.5, i + 0.5], -1), (2, 48, 64, 2))
    np.testing.assert_allclose(project(points, K), centres, atol=1e-4)
    np.testing.assert_allclose(to_camera(to_world(points, POSE), POSE), points, atol=5e-6)


def test_resizing_moves_pixels_and_not_rays():
    small = Camera(64, 48, K, POSE).resized(24, 32)
    rays, fewer = pixel_rays(K, 48, 64), pixel_rays(small.K, 24, 32)
    # The centre of a pixel of the half grid is the corner that four pixels share.
    four = rays.reshape(24, 2, 32, 2, 3).mean((1, 3))
    np.testing.assert_allclose(fewer, four, atol=1e-5)


@pytest.mark.parametrize("altitude", [0.0, 0.2])
def test_the_ground_is_where_rays_meet_it(altitude):
    depth = ground_depth(K, POSE, 4.0, (48, 64), altitude)
    points = to_world(pointmap(depth, K)[None], POSE)[0]
    near = np.asarray(depth) < 4.0
    assert 0.05 < near.mean() < 0.95
    np.testing.assert_allclose(points[near][:, 2], altitude, atol=1e-5)
    # Where the limit stands, the plane is further off or above the ray.
    assert (np.asarray(points)[~near][:, 2] > altitude - 1e-5).all()


def test_a_camera_below_the_ground_sees_none():
    above = np.asarray(se3.invert(jnp.asarray(POSE)))[2, 3] + 0.1
    assert (np.asarray(ground_depth(K, POSE, 4.0, (48, 64), above)) == 4.0).all()
