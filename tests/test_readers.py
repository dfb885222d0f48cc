"""Readers of others' files: right frames of reference; InputError for whatever is wrong."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from clips import make_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from w4d_jax.data import record
from w4d_jax.data.calvin import CalvinSource
from w4d_jax.data.droid import DroidSource
from w4d_jax.data.result import Result, new_folder, read_result, view_result, write_result
from w4d_jax.data.store import StoreSource
from w4d_jax.data.video import read_video, write_video
from w4d_jax.kin import load_robot
from w4d_jax.kin.camera import project, to_camera
from w4d_jax.npz import read_npz
from w4d_jax.types import Camera, InputError

SHARED = Path(__file__).parents[2] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs the development data")

JOINT = """
<joint name="j{i}" type="{kind}"><parent link="l{parent}"/><child link="l{i}"/>
 <origin xyz="0 0 0.1"/><axis xyz="{axis}"/><limit lower="{low}" upper="{high}" effort="1"
 velocity="1"/></joint>
<link name="l{i}"><visual><origin xyz="0 0 0.05"/><geometry><box size="0.06 0.06 0.1"/>
 </geometry></visual></link>"""


@pytest.fixture(scope="module")
def urdf(tmp_path_factory):
    """Seven turning joints and a gripper, of boxes."""
    path = tmp_path_factory.mktemp("robot") / "arm.urdf"
    joints = [
        JOINT.format(
            i=i,
            parent=i - 1,
            kind="revolute" if i < 8 else "prismatic",
            axis="0 0 1" if i % 2 else "0 1 0",
            low=-3 if i < 8 else 0,
            high=3 if i < 8 else 0.04,
        )
        for i in range(1, 9)
    ]
    path.write_text(f'<robot name="boxes"><link name="l0"/>{"".join(joints)}</robot>')
    return path


# ------ npz


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (2, 3, 4, 3), np.uint8)
    np.savez_compressed(path, rgb=rgb, z=rng.random((2, 3, 4), np.float32), other=object)
    return path, {"rgb": "u1 T H W 3", "z": "f4 T H W"}


@settings(derandomize=True, max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_npz_is_an_input_error_or_harmless(npz, tmp_path_factory, data):
    path, shapes = npz
    good = read_npz(path, shapes)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:at]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path_factory.getbasetemp() / "damaged.npz"
    damaged.write_bytes(content)
    try:
        got = read_npz(damaged, shapes)
    except InputError as error:
        assert str(damaged) in str(error) and "\n" not in str(error)
    else:
        assert all(np.array_equal(good[k], got[k]) for k in good)


def test_an_npz_is_held_to_its_description(npz, tmp_path):
    path, shapes = npz
    for wanted, message in [
        ({"q": "f T"}, "no q; it holds"),
        ({"rgb": "f4 T H W 3"}, r"rgb is u1 \(2, 3, 4, 3\), need f4 T H W 3"),
        ({"rgb": "u1 T H W 4"}, "need u1 T H W 4"),
        (shapes | {"z": "f4 H T W"}, "z has H = 2, rgb has 3"),
        ({"other": "f"}, "damaged"),  # a pickle is never opened
    ]:
        with pytest.raises(InputError, match=message):
            read_npz(path, wanted)
    with pytest.raises(InputError, match="No such file"):
        read_npz(tmp_path / "nowhere.npz", shapes)
    np.savez(tmp_path / "nan.npz", z=np.full((2, 3, 4), np.nan, np.float32))
    with pytest.raises(InputError, match=r"z holds NaN or infinity, first at \[0, 0, 0\]"):
        read_npz(tmp_path / "nan.npz", {"z": "f4 T H W"})
    np.savez(tmp_path / "empty.npz", z=np.zeros((0, 3, 4), np.float32))
    with pytest.raises(InputError, match="z has T = 0, need 1 or more"):
        read_npz(tmp_path / "empty.npz", {"z": "f4 T H W"})


# ------ video


def smooth(frames, height, width):
    t, y, x = np.meshgrid(
        *(np.linspace(0, 3, n) for n in (frames, height, width)), indexing="ij"
    )
    waves = np.stack([np.sin(x + t), np.cos(y - t), np.sin(x + y)], -1)
    return np.round(128 + 70 * waves).astype(np.uint8)


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 32, 32), (7, 33, 47)])
def test_video_files_round_trip_for_the_eye(tmp_path, frames, height, width):
    rgb = smooth(frames, height, width)
    write_video(tmp_path / "v.mp4", rgb, 12.5)
    got, fps = read_video(tmp_path / "v.mp4")
    assert fps == 12.5
    assert got.shape == (frames, height + height % 2, width + width % 2, 3)
    error = got[:, :height, :width].astype(float) - rgb
    assert abs(error.mean()) < 0.5  # neither darker nor brighter
    assert np.sqrt((error**2).mean()) < 6  # of 255; strong colour at half resolution


@settings(derandomize=True, max_examples=40, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(0, 255))
def test_a_damaged_video_is_an_input_error_or_whole(tmp_path_factory, at, flip):
    base = tmp_path_factory.getbasetemp()
    if not (base / "good.mp4").exists():
        write_video(base / "good.mp4", smooth(5, 32, 32), 10)
    content = bytearray((base / "good.mp4").read_bytes())
    at = int(at * len(content))
    if flip:
        content[at] ^= flip
    else:
        content = content[:at]
    (base / "damaged.mp4").write_bytes(content)
    try:
        rgb, _ = read_video(base / "damaged.mp4")
    except InputError as error:
        assert "damaged.mp4" in str(error) and "\n" not in str(error)
    else:
        assert rgb.ndim == 4 and rgb.dtype == np.uint8


def test_what_is_no_video(tmp_path):
    (tmp_path / "text.mp4").write_text("not a film")
    for name in ("text.mp4", "nowhere.mp4"):
        with pytest.raises(InputError, match=f"video .*{name}: cannot read it"):
            read_video(tmp_path / name)


# ------ results


def test_a_result_comes_back_exactly(tmp_path):
    view = make_clip(0, frames=3, height=8, width=10).views["wrist"]
    result = view_result(view)
    write_result(tmp_path / "out", result, 10.0)
    names = sorted(p.name for p in tmp_path.rglob("*"))
    assert names == ["clip.npz", "out", "preview.gif", "rgb.mp4"]
    for path in (tmp_path / "out", tmp_path / "out" / "clip.npz"):
        got = read_result(path)
        for a, b in zip(result[:3], got[:3], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(got.camera.cam_from_world, view.camera.cam_from_world)
    with pytest.raises(InputError, match="exists already"):
        write_result(tmp_path / "out", result, 10.0)


def test_points_of_a_result_lie_on_their_pixels():
    view = make_clip(1, frames=2, height=6, width=8).views["wrist"]
    points = to_camera(view_result(view).pointmap, view.camera.cam_from_world)
    np.testing.assert_allclose(points[..., 2], view.depth, atol=1e-5)
    seen = view.depth > 0.1
    row, column = np.mgrid[:6, :8]
    uv = np.stack([column, row], -1) + 0.5
    pixel = np.asarray(project(points, view.camera.K))
    np.testing.assert_allclose(pixel[seen], np.tile(uv, (2, 1, 1, 1))[seen], atol=1e-3)


def test_a_failed_result_leaves_nothing(tmp_path):
    view = make_clip(0).views["front"]
    whole = view_result(view)
    for broken, message in [
        (whole._replace(pointmap=whole.pointmap[1:]), "pointmap has T = 4, rgb has 5"),
        (whole._replace(robot_mask=whole.robot_mask * 1.0), "robot_mask is f8"),
        (
            whole._replace(pointmap=whole.pointmap * np.float32(np.nan)),
            "pointmap holds NaN",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            write_result(tmp_path / "out", Result(*broken), 10.0)
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("")
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


# ------ CALVIN


def calvin_arrays(seed=0, frames=4):
    rng = np.random.default_rng(seed)
    x = {
        "joint_positions": rng.uniform(-0.4, 0.4, (frames, 7)).astype(np.float32),
        "gripper_width": rng.uniform(0, 0.08, frames).astype(np.float32),
        "actions": rng.uniform(-1, 1, (frames, 7)).astype(np.float32),
        "block_positions": rng.uniform(-1, 1, (frames, 3, 3)).astype(np.float32),
        "robot_base_pos": np.array([-0.3, -0.5, 0.2]),
        "language": np.array("lift it"),
        "success": np.array(True),
    }
    x["actions"][:, 6] = [1, -1, 1, -1]
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("x", 100, degrees=True).as_matrix()
    pose[:3, 3] = [0.3, 0.5, 2.0]
    for name in ("static", "opposing", "gripper"):
        x[f"{name}_w2c"] = pose if name != "gripper" else np.tile(pose, (frames, 1, 1))
        x[f"{name}_K"] = np.array([[30, 0, 16], [0, 30, 12], [0, 0, 1.0]])
        x[f"rgb_{name}"] = rng.integers(0, 256, (frames, 24, 32, 3), np.uint8)
        x[f"depth_{name}"] = rng.integers(1, 65536, (frames, 24, 32)).astype(np.uint16)
        x[f"depth_{name}"][0, 0, 0] = 65535
    return x


def test_calvin_reads_as_a_clip_in_the_base_frame(urdf, tmp_path):
    x = calvin_arrays()
    np.savez(tmp_path / "b.npz", **x)
    np.savez(tmp_path / "a.npz", **calvin_arrays(1))
    source = CalvinSource(tmp_path, urdf)
    assert len(source) == 2
    clip = source[1]
    record.check(clip)
    assert (clip.id, clip.fps, list(clip.views)) == (
        "b",
        30.0,
        ["static", "opposing", "gripper"],
    )
    assert clip.meta["language"] == "lift it" and clip.meta["success"] is True
    np.testing.assert_allclose(clip.joints[:, 7], x["gripper_width"] / 2)
    base = x["robot_base_pos"]
    np.testing.assert_allclose(
        clip.objects[..., :3], x["block_positions"] - base, atol=1e-6
    )
    np.testing.assert_allclose(clip.actions[:, :3], x["actions"][:, :3] - base, atol=1e-6)
    np.testing.assert_allclose(clip.actions[:, 7], [0.08, 0, 0.08, 0], atol=1e-7)
    turn = Rotation.from_quat(clip.actions[:, 3:7], scalar_first=True)
    want = Rotation.from_euler("xyz", x["actions"][:, 3:6])
    assert (turn * want.inv()).magnitude().max() < 1e-6
    # The block seen by a camera: the same point through either frame.
    for name, view in clip.views.items():
        world = np.pad(x["block_positions"], [(0, 0), (0, 0), (0, 1)], constant_values=1)
        pose = np.broadcast_to(x[f"{name}_w2c"], (4, 4, 4))
        seen = np.einsum("tij,tnj->tni", pose, world)[..., :3]
        ours = to_camera(clip.objects[:, :, None, :3], view.camera.cam_from_world)
        np.testing.assert_allclose(ours[:, :, 0], seen, atol=1e-5)
        assert view.depth[0, 0, 0] == 0  # beyond range is unknown
        known = x[f"depth_{name}"] < 65535
        np.testing.assert_allclose(
            view.depth[known] * 1e4, x[f"depth_{name}"][known], rtol=1e-6
        )
    assert (clip.views["static"].robot_depth > 0).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"success": None}, "no success"),
        ({"depth_static": np.zeros((2, 24, 32), np.uint16)}, "depth_static has T = 2"),
        ({"rgb_gripper": np.zeros((4, 24, 32), np.uint8)}, "rgb_gripper is u1"),
        ({"joint_positions": np.full((4, 7), 9.0)}, "j1"),
        ({"actions": np.full((4, 7), np.inf)}, "actions holds NaN or infinity"),
        ({"static_w2c": np.zeros((4, 4))}, "not a rotation"),
        ({"static_K": np.zeros((3, 3))}, "focal"),
    ],
)
def test_a_bad_calvin_file_is_an_input_error(urdf, tmp_path, change, message):
    x = {k: v for k, v in (calvin_arrays() | change).items() if v is not None}
    np.savez(tmp_path / "bad.npz", **x)
    with pytest.raises(InputError, match=rf"bad\.npz.*{message}"):
        CalvinSource(tmp_path, urdf)[0]
    with pytest.raises(InputError, match=r"no \.npz files"):
        CalvinSource(tmp_path / "nowhere", urdf)


@needs_shared
def test_calvin_data_agrees_across_robot_cameras_and_blocks(tmp_path, monkeypatch):
    """Three frames of a real file, in the base frame; the renderer has its own tests."""
    black = np.zeros(1, np.uint8)
    nothing = SimpleNamespace(rgb=black, depth=black)
    monkeypatch.setattr("w4d_jax.data.calvin.draw_robot", lambda *_: nothing)
    file = np.load(SHARED / "data" / "calvin_sim" / "ep0_red.npz")
    frames = len(file["actions"])
    x = {k: v[::20] if np.shape(v)[:1] == (frames,) else v for k, v in file.items()}
    np.savez(tmp_path / "three.npz", **x)
    urdf = SHARED / "data/robots/panda_calvin/data/franka_panda/panda_longer_finger.urdf"
    source = CalvinSource(tmp_path, urdf)
    clip, robot = source[0], source.robot
    static, gripper = clip.views["static"], clip.views["gripper"]
    poses = np.asarray(robot.link_poses(clip.joints), np.float64)
    tool = poses[:, robot.link_index(clip.meta["tool"]), :3, 3]
    np.testing.assert_allclose(tool, x["tcp_pose"][:, :3] - x["robot_base_pos"], atol=1e-5)
    assert np.abs(clip.actions[:, :3] - tool).max() < 0.01  # commands lead by a few mm
    # The gripper's camera is fixed to its link.
    cam_from_link = (
        gripper.camera.cam_from_world @ poses[:, robot.link_index("gripper_cam")]
    )
    np.testing.assert_allclose(cam_from_link, cam_from_link[:1].repeat(3, 0), atol=1e-4)
    # What the gripper's camera sees lies where the static camera sees it.
    points = to_camera(view_result(gripper).pointmap, static.camera.cam_from_world)
    column, row = np.floor(np.asarray(project(points, static.camera.K))[0]).astype(int).T
    inside = (row.T >= 0) & (row.T < 200) & (column.T >= 0) & (column.T < 200)
    seen = static.depth[0][row.T[inside], column.T[inside]]
    assert (
        np.median(np.abs(seen - points[0, ..., 2][inside])) < 0.003
    )  # half a pixel's slant
    # A block's centre falls on pixels of its own.
    for k, number in enumerate(x["seg_block_ids"]):
        centre = to_camera(
            clip.objects[:1, k, None, None, :3], static.camera.cam_from_world
        )
        u, v = np.asarray(project(centre, static.camera.K)).ravel().astype(int)
        assert x["seg_static"][0, v, u] == number


# ------ DROID


def droid_folder(root: Path, frames=4, extra=1, calibration=True) -> dict:
    """One episode as the Ctrl-World authors recorded them; the first video is longer."""
    rng = np.random.default_rng(0)
    note = {
        "texts": ["tidy up"],
        "success": 1,
        "videos": [{"video_path": f"videos/val/7/{i}.mp4"} for i in range(3)],
        "states": rng.uniform(-1, 1, (frames, 7)).tolist(),
        "joints": rng.uniform(0, 0.5, (frames, 8)).tolist(),
    }
    (root / "annotation/val").mkdir(parents=True)
    (root / "videos/val/7").mkdir(parents=True)
    (root / "annotation/val/7.json").write_text(json.dumps(note))
    for i in range(3):
        rgb = smooth(frames + (extra if i == 0 else 0), 24, 32)
        write_video(root / f"videos/val/7/{i}.mp4", rgb, 4)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("x", 100, degrees=True).as_matrix()
    pose[:3, 3] = [0, 0.3, 1.5]
    K = np.array([[120, 0, 64], [0, 120, 48], [0, 0, 1.0]])
    Camera(128, 96, K, pose).to_json(root / "val_7.json")
    return note


def test_droid_reads_as_a_clip(urdf, tmp_path):
    note = droid_folder(tmp_path)
    source = DroidSource(
        tmp_path, urdf, {"exterior_1": str(tmp_path / "{id}.json")}, uncalibrated=("wrist",)
    )
    clip = source[0]
    record.check(clip)
    assert (clip.id, clip.fps, len(clip.joints)) == ("val/7", 4.0, 4)
    assert clip.meta["frames_cut"] == {"exterior_1": 1}
    assert clip.meta["calibrated"] == {"exterior_1": True, "wrist": False}
    assert clip.meta["actions"].startswith("measured")
    joints, states = np.array(note["joints"]), np.array(note["states"])
    np.testing.assert_allclose(clip.joints[:, :7], joints[:, :7], rtol=1e-6)
    np.testing.assert_allclose(clip.joints[:, 7], joints[:, 7] * 0.04, rtol=1e-6)
    np.testing.assert_allclose(clip.actions[:, 7], 0.085 * (1 - states[:, 6]), rtol=1e-5)
    exterior, wrist = clip.views["exterior_1"], clip.views["wrist"]
    np.testing.assert_allclose(exterior.camera.K[:2, 2], [16, 12])  # 128x96 read as 32x24
    assert (exterior.robot_depth > 0).any() and not wrist.robot_depth.any()
    assert not exterior.depth.any()
    np.testing.assert_allclose(wrist.camera.K[0], [732 * 32 / 1280, 0, 16])


def test_a_droid_camera_rides_on_its_link(urdf, tmp_path):
    droid_folder(tmp_path, extra=0)
    path = str(tmp_path / "val_7.json")
    clip = DroidSource(tmp_path, urdf, {"wrist": path}, {"wrist": "l7"})[0]
    base_from_link = np.asarray(load_robot(urdf).link_poses(clip.joints))[:, 7]
    cam_from_link = np.tile(Camera.from_json(path).cam_from_world, (4, 1, 1))
    got = clip.views["wrist"].camera.cam_from_world @ base_from_link
    np.testing.assert_allclose(got, cam_from_link, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "need some of"),
        ({"cameras": {"top": "x"}}, "need some of"),
        ({"cameras": {"wrist": "x"}, "uncalibrated": ("wrist",)}, "each once"),
        ({"uncalibrated": ("wrist",), "mounts": {"wrist": "l7"}}, "need a camera for each"),
        ({"cameras": {"wrist": "x"}, "mounts": {"wrist": "l99"}}, "l99"),
    ],
)
def test_droid_options_are_checked(urdf, tmp_path, options, message):
    droid_folder(tmp_path)
    with pytest.raises(InputError, match=message):
        DroidSource(tmp_path, urdf, **options)


def test_bad_droid_files_are_input_errors(urdf, tmp_path):
    good = droid_folder(tmp_path)
    file = tmp_path / "annotation/val/7.json"
    source = DroidSource(tmp_path, urdf, uncalibrated=("exterior_1",))
    for change, message in [
        ({"joints": None}, "not a DROID annotation"),
        ({"joints": [[0.1] * 7] * 4}, "14 columns"),
        ({"joints": [[0.1] * 8] * 3}, r"tables of \[3, 4\] rows"),
        ({"joints": [[9.0] * 8] * 4}, "j1"),
        ({"states": [[float("nan")] * 7] * 4}, "NaN"),
        ({"states": [["x"] * 7] * 4}, "not a DROID annotation"),
        ({"joints": good["joints"][:2], "states": good["states"][:2]}, "differ by more"),
        ({"videos": []}, "not a DROID annotation"),
        ({"videos": [{"video_path": "no.mp4"}]}, "cannot read it"),
    ]:
        file.write_text(json.dumps(good | change))
        with pytest.raises(InputError, match=rf"7\.json: .*{message}"):
            source[0]
    for text in ("", "{", "[]", "3"):
        file.write_text(text)
        with pytest.raises(InputError, match="not a DROID annotation"):
            source[0]


@needs_shared
def test_droid_data_agrees_with_the_robot():
    """Forward kinematics of the measured joints gives the recorded flange to 1 um."""
    data = SHARED / "data"
    urdf = data / "robots/panda_droid/franka_description/panda.urdf"
    source = DroidSource(data / "droid/droid_new_setup", urdf, uncalibrated=("wrist",))
    clip = source[5]
    assert clip.id == "val/0006" and clip.meta["frames_cut"] == {"wrist": 1}
    poses = np.asarray(source.robot.link_poses(clip.joints))
    flange = poses[:, source.robot.link_index(clip.meta["tool"])]
    np.testing.assert_allclose(flange[:, :3, 3], clip.actions[:, :3], atol=1e-6)
    turn = Rotation.from_quat(clip.actions[:, 3:7], scalar_first=True).as_matrix()
    np.testing.assert_allclose(flange[:, :3, :3], turn, atol=1e-5)


# ------ tools/prepare.py


@pytest.fixture(scope="module")
def prepare():
    path = Path(__file__).parents[1] / "tools" / "prepare.py"
    spec = importlib.util.spec_from_file_location("prepare", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_prepare_writes_a_store_and_takes_clips_out(prepare, urdf, tmp_path, capsys):
    (tmp_path / "npz").mkdir()
    for name in ("a", "b"):
        np.savez(tmp_path / "npz" / f"{name}.npz", **calvin_arrays())
    store, out = str(tmp_path / "store"), tmp_path / "clip"
    data = ["--data", str(tmp_path / "npz"), "--robot", str(urdf)]
    assert prepare(["calvin", *data, "--out", store]) == 0
    assert "2 clips" in capsys.readouterr().out
    take = ["clip", "--store", store, "--view", "static", "--out", str(out)]
    size = ["--frames", "2", "--size", "12", "16"]
    assert prepare([*take, "--index", "1", *size]) == 0
    clip = StoreSource(store)[1]
    result = read_result(out / "truth")
    assert result.rgb.shape == (2, 12, 16, 3)
    np.testing.assert_allclose(Camera.from_json(out / "camera.json").K, result.camera.K)
    np.testing.assert_array_equal(np.asarray(Image.open(out / "first.png")), result.rgb[0])
    q = read_npz(out / "q.npz", {"joint_names": "U J", "q": "f4 T J"})
    assert tuple(q["joint_names"]) == clip.joint_names
    np.testing.assert_array_equal(q["q"], clip.joints[[0, -1]])
    actions = read_npz(out / "actions.npz", {"ee_pose": "f4 T 7", "gripper": "f4 T"})
    got = np.column_stack([actions["ee_pose"], actions["gripper"]])
    np.testing.assert_array_equal(got, clip.actions[[0, -1]])

    before = sorted(tmp_path.rglob("*"))
    for arguments, message in [
        (["calvin", *data, "--out", store], "exists already"),
        (["calvin", *data, "--out", f"{store}2", "--shard-clips", "0"], "--shard-clips 0"),
        (["calvin", "--data", "/nowhere", *data[2:], "--out", "x"], "no .npz files"),
        ([*take, "--index", "2"], "clips 0..1"),
        ([*take[:3], "--view", "top", "--index", "0", "--out", "x"], "it has ['static'"),
        ([*take, "--index", "0"], "exists already"),
        (
            ["clip", "--store", "/no", "--view", "v", "--index", "0", "--out", "x"],
            "cannot read",
        ),
    ]:
        assert prepare(arguments) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ") and message in error and "\n" not in error
    assert sorted(tmp_path.rglob("*")) == before
