"""The wrist camera: exact on recordings, the condition map from files, the metrics."""

from pathlib import Path

import numpy as np
import pytest
from runs import tool
from scenes import cast, looking
from scipy.spatial.transform import Rotation

from w4d_jax.data.result import Result, read_result, view_result, write_result
from w4d_jax.evaluate import wrist as score
from w4d_jax.kin import Camera, load_robot
from w4d_jax.kin.handeye import carried, mounted
from w4d_jax.npz import read_npz
from w4d_jax.sample.exact import exact_map
from w4d_jax.train.config import load_config
from w4d_jax.train.task import build
from w4d_jax.types import InputError, View

ROOT = Path(__file__).parents[1]
CALVIN = ROOT.parent / "shared" / "data" / "calvin_sim"
PANDA = CALVIN.parent / "robots/panda_calvin/data/franka_panda/panda_longer_finger.urdf"
needs_calvin = pytest.mark.skipif(not CALVIN.exists(), reason="no development data")
# PyBullet looks along the link's y with -z upwards: CALVIN's GripperCamera.
CAM_FROM_GRIPPER_CAM = np.float32([[-1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


# ------ recordings


@pytest.fixture(scope="module")
def panda():
    return load_robot(PANDA)


def recorded(episode: str, every: int):
    """(joints f32[T,8], {camera: View in the base frame}) of every so many frames."""
    views = {}
    with np.load(CALVIN / f"{episode}.npz") as x:
        frames = slice(None, None, every)
        joints = np.column_stack([x["joint_positions"], x["gripper_width"] / 2])[frames]
        for name in ("static", "opposing", "gripper"):
            rgb, ticks = x[f"rgb_{name}"][frames], x[f"depth_{name}"][frames]
            pose = x[f"{name}_w2c"].astype(np.float64)
            pose = pose[frames] if pose.ndim == 3 else pose
            pose[..., :3, 3] += pose[..., :3, :3] @ x["robot_base_pos"]
            depth = np.where(ticks == 65535, 0, ticks) / np.float32(1e4)
            robot = x[f"seg_{name}"][frames] == x["seg_robot_id"]
            camera = Camera(rgb.shape[2], rgb.shape[1], x[f"{name}_K"], pose)
            views[name] = View(camera, rgb, depth, np.where(robot, depth, 0), rgb)
    return joints.astype(np.float32), views


@needs_calvin
@pytest.mark.parametrize("episode", ["ep0_red", "ep1_blue"])
def test_a_recorded_gripper_camera_is_where_kinematics_put_it(panda, episode):
    joints, views = recorded(episode, 1)
    true = views["gripper"].camera
    mount = Camera(true.width, true.height, true.K, CAM_FROM_GRIPPER_CAM)
    camera = carried(panda, joints, "gripper_cam", mount)
    errors = score.pose_errors(camera.cam_from_world, true.cam_from_world)
    assert len(joints) == 58
    assert errors["translation"].max() < 1e-5 and errors["rotation"].max() < 1e-3
    # The mount is also found from the recording.
    links = np.asarray(panda.link_poses(joints))[:, panda.link_index("gripper_cam")]
    found, far, turned = mounted(links, true.cam_from_world)
    np.testing.assert_allclose(found, CAM_FROM_GRIPPER_CAM, atol=1e-6)
    assert far < 1e-5 and np.rad2deg(turned) < 1e-3


@needs_calvin
def test_the_map_from_the_anchors_is_what_the_gripper_camera_saw(panda):
    joints, views = recorded("ep0_red", 29)
    scenes = [view_result(views[name]) for name in ("static", "opposing")]
    seen, valid = exact_map(scenes, panda, joints, views["gripper"].camera)
    truth = views["gripper"]
    known = valid & (truth.depth > 0)
    assert 0.5 < valid.mean() < 0.8
    depth = np.asarray(seen.pointmap - view_result(truth).pointmap)
    error = np.linalg.norm(depth, axis=-1)[known]
    assert np.median(error) < 0.002 and (error < 0.01).mean() > 0.85
    colour = np.abs(seen.rgb.astype(int) - truth.rgb).mean(-1)[known]
    assert np.median(colour) < 20
    robot = truth.robot_depth > 0
    assert (seen.robot_mask & robot).sum() > 0.8 * robot.sum() > 0


# ------ the command

ARM = """
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <body name="foot" pos="-.5 0 0">
      <joint name="slide" type="slide" axis="0 1 0" range="-1 1"/>
      <geom type="box" size=".02 .02 .3" pos="0 0 .3"/>
      <body name="hand" pos=".5 0 .6">
        <joint name="turn" axis="0 0 1" range="-2 2"/>
        <geom type="box" size=".01 .01 .01" pos=".02 0 -.1"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""
Q = np.array([[0.0, 0.2], [0.1, -0.3]], np.float32)
K = np.array([[40.0, 0, 16], [0, 40, 12], [0, 0, 1]], np.float32)
DOWN = np.diag([1, -1, -1, 1]).astype(np.float32)  # from the hand: looks at the table


@pytest.fixture(scope="module")
def command():
    return tool("wrist").main


def anchor(eye, frames: int) -> Result:
    """The table and the card (tests/scenes.py) without any robot; red is high."""
    pose = looking(eye, (0, 0, 0.05))
    v, u = np.mgrid[:24, :32] + 0.5
    depth = np.tile(cast(K.astype(np.float64), pose, u, v), (frames, 1, 1))
    camera = Camera(32, 24, K, pose)
    blank = np.zeros((frames, 24, 32, 3), np.uint8)
    view = View(camera, blank, depth.astype(np.float32), 0 * depth, blank)
    result = view_result(view)
    rgb = np.where(result.pointmap[..., 2:] > 0.05, [200, 0, 0], [0, 0, 90])
    return result._replace(rgb=rgb.astype(np.uint8))


@pytest.fixture
def files(tmp_path):
    (tmp_path / "arm.xml").write_text(ARM)
    np.savez(tmp_path / "q.npz", joint_names=["slide", "turn"], q=Q)
    Camera(32, 24, K, DOWN).to_json(tmp_path / "cam.json")
    write_result(tmp_path / "one", anchor((0.8, 0.1, 0.9), 1), 4)
    write_result(tmp_path / "two", anchor((-0.2, -0.8, 0.9), 2), 4)
    return tmp_path


def arguments(folder, **changes):
    names = {
        "robot": "arm.xml",
        "joints": "q.npz",
        "wrist-camera": "cam.json",
        "out": "made",
    } | changes
    pairs = [x for key, name in names.items() for x in (f"--{key}", str(folder / name))]
    return [*pairs, "--wrist-link", "hand"]


def test_the_command_makes_a_result_with_exact_cameras(files, command):
    scenes = ["--scene", str(files / "one"), str(files / "two")]
    assert command([*arguments(files), *scenes]) == 0
    made = read_result(files / "made")
    valid = read_npz(files / "made" / "clip.npz", {"valid": "b1 2 24 32"})["valid"]
    for t in range(2):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("z", Q[t, 1]).as_matrix()
        pose[:3, 3] = [0, Q[t, 0], 0.6]
        true = DOWN @ np.linalg.inv(pose)
        errors = score.pose_errors(made.camera.cam_from_world[t], true)
        assert errors["translation"] < 1e-6 and errors["rotation"] < 1e-4
        v, u = np.mgrid[:24, :32] + 0.5
        depth = cast(K.astype(np.float64), true, u, v)
        rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T
        points = (rays * depth[..., None] - true[:3, 3]) @ true[:3, :3]
        scene = valid[t] & ~made.robot_mask[t]
        apart = np.linalg.norm(made.pointmap[t] - points, axis=-1)[scene]
        assert scene.mean() > 0.8 and (apart < 2e-3).mean() > 0.9
        assert 0 < made.robot_mask[t].sum() < 100 and valid[t][made.robot_mask[t]].all()
        assert (made.rgb[t][~valid[t]] == 0).all()


@pytest.mark.parametrize(
    ("scene", "changes", "message"),
    [
        ("three", {}, "scene 1: 3 frames, the joints 2"),
        ("one", {"out": "two"}, "exists already"),
        ("one", {"wrist-camera": "moving.json"}, "2 poses on the link hand, need one"),
        ("one", {"wrist-camera": "up.json"}, "sees nothing in any of 2 frames"),
        ("nowhere", {}, "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    files, command, capsys, scene, changes, message
):
    write_result(files / "three", anchor((0.8, 0.1, 0.9), 3), 4)
    Camera(32, 24, K, np.stack([DOWN, DOWN])).to_json(files / "moving.json")
    Camera(32, 24, K, np.eye(4)).to_json(files / "up.json")
    before = sorted(files.iterdir())
    assert command([*arguments(files, **changes), "--scene", str(files / scene)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(files.iterdir()) == before


def test_scenes_of_two_sizes_are_refused(files):
    small = anchor((0.8, 0.1, 0.9), 1)
    camera = Camera(16, 24, K, small.camera.cam_from_world)
    narrow = Result(*(x[:, :, :16] for x in small[:3]), camera)
    robot = load_robot(files / "arm.xml")
    with pytest.raises(InputError, match="scenes of 24x32 and 24x16 pixels: need one size"):
        exact_map([small, narrow], robot, Q, small.camera)


# ------ metrics


def test_pose_errors_are_exact_from_microdegrees_to_half_a_turn():
    axis = np.array([1, 2, -2]) / 3
    for angle in (0.0, 1e-8, 1e-3, 1.0, np.pi):
        truth = np.eye(4)
        truth[:3, :3] = Rotation.from_rotvec([0.3, 0.2, 0.1]).as_matrix()
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_rotvec(angle * axis).as_matrix() @ truth[:3, :3]
        pose[:3, 3] = -pose[:3, :3] @ [3, 0, 4]
        errors = score.pose_errors(pose, truth)
        assert errors["rotation"] == pytest.approx(np.rad2deg(angle), abs=1e-7)
        assert errors["translation"] == pytest.approx(5)


def test_pixels_points_fields_and_units():
    K = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])
    rng = np.random.default_rng(0)
    points = rng.uniform([-1, -1, 0.5], [1, 1, 3], (200, 3))
    pose = np.eye(4)
    assert score.reprojection_error(points, (K, pose), (K, pose), 48, 64) == 0
    aside = np.add(K, [[0, 0, 3], [0, 0, 4], [0, 0, 0]])
    found = score.reprojection_error(points, (aside, pose), (K, pose), 48, 64)
    assert found == pytest.approx(5)
    back = np.diag([-1.0, 1, -1, 1])  # all behind it: the diagonal
    assert score.reprojection_error(points, (K, back), (K, pose), 48, 64) == 80
    assert np.isnan(score.reprojection_error(points, (K, pose), (K, back), 48, 64))

    wide = K * [[0.5], [0.5], [1]]
    expected = np.rad2deg(2 * np.arctan([[48 / 50, 64 / 50], [48 / 100, 64 / 100]]))
    field = score.field_errors(wide, K, 48, 64)
    assert field == pytest.approx((expected[0] - expected[1]).mean())

    valid = np.arange(200) % 2 == 0
    said = points / 0.3 + np.where(valid, 0, 100)[:, None]
    unit = score.metres(said, points, valid)
    assert unit == pytest.approx(0.3)
    assert score.point_error(unit * said, points, valid) == pytest.approx(0, abs=1e-12)
    assert score.point_error(np.add(points, [0, 3, 4]), points, valid) == pytest.approx(5)
    assert np.isnan(score.metres(said, points, ~valid & valid))
    np.testing.assert_allclose(score.scaled(2 * np.eye(4), 0.5)[:3, 3], 0)


def test_scores_of_a_moment_and_the_camera_in_the_middle():
    rng = np.random.default_rng(0)
    K = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])
    points = rng.uniform([-1, -1, 2], [1, 1, 3], (2, 4, 5, 3))
    valid = rng.random((2, 4, 5)) < 0.7
    true = score.Wrist(np.eye(4), K, points)
    found = score.wrist_scores(true, true, valid, points[valid], 48, 64)
    assert list(found.values()) == [0, 0, 0, 0, 0]
    pose = np.eye(4)
    pose[:3, 3] = [0, 0, -2]
    back = score.Wrist(pose, K, np.add(points, [0, 0.3, 0.4]))
    found = score.wrist_scores(back, true, valid, points[valid], 48, 64)
    assert found["wrist_translation"] == 2 and found["wrist_reprojection"] > 1
    assert found["anchor_points"] == pytest.approx(0.5)

    angles = np.deg2rad([-20, 30, 20, -30])
    turns = Rotation.from_rotvec(angles[:, None] * [0, 1, 0]).as_matrix()
    places = np.array([[0, 0, 1], [0, 0, 3], [2, 0, 2], [-2, 4, 2.0]])
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, :3, :3] = turns
    poses[:, :3, 3] = -np.einsum("nij,nj->ni", turns, places)
    middle = score.mean_wrist(poses, np.stack([K, K, 2 * K, 2 * K]))
    np.testing.assert_allclose(middle.cam_from_world[:3, :3], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(middle.cam_from_world[:3, 3], [0, -1, -2], atol=1e-9)
    np.testing.assert_allclose(middle.K, 1.5 * K)
    lone = score.wrist_scores(middle, true, valid, points[valid], 48, 64)
    assert "anchor_points" not in lone


@needs_calvin
@pytest.mark.parametrize("file", ["wristworld_geometry", "wristworld_video", "kinema4d"])
def test_two_recordings_are_enough_to_train_on(file):
    """One of them held out: the rest makes a batch of the preset."""
    config = load_config(str(ROOT / f"configs/{file}.py:calvin"))
    config.data.calvin.update({"folder": str(CALVIN), "robot": str(PANDA)})
    task = build(config)
    assert len(task.items("train")) >= config.batch and len(task.items("test")) >= 1
