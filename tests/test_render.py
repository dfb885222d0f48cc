"""Drawing robots: MuJoCo's rays, CALVIN's cameras, gradients, shading, the command."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

from w4d_jax.kin import Camera, load_robot, render_robot
from w4d_jax.kin.mesh import Triangles
from w4d_jax.kin.render import Light, draw_robot, render_scene
from w4d_jax.types import InputError

ROOT = Path(__file__).parents[1]
CALVIN = ROOT.parent / "shared" / "data" / "calvin_sim"
PANDA = CALVIN.parent / "robots/panda_calvin/data/franka_panda/panda_longer_finger.urdf"
needs_calvin = pytest.mark.skipif(not CALVIN.exists(), reason="no development data")

ARM = """
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <body name="foot">
      <geom type="box" size=".1 .1 .05" pos="0 0 .05" rgba=".8 .2 .2 1"/>
    </body>
    <body name="upper" pos="0 0 .1">
      <joint name="shoulder" axis="0 1 0" range="-2 2"/>
      <geom type="box" size=".04 .05 .2" pos="0 0 .2"/>
      <body name="lower" pos="0 0 .4">
        <joint name="elbow" axis="1 .3 0" range="-2 2"/>
        <geom type="box" size=".03 .06 .15" pos=".02 0 .15" euler="0 0 .5"/>
        <body name="tip" pos="0 0 .3">
          <joint name="slide" type="slide" axis="0 0 1" range="0 .1"/>
          <geom type="box" size=".08 .02 .02"/>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""
H, W = 60, 80
Q = np.array([[0.3, -0.8, 0.05], [-0.9, 0.4, 0.0], [1.4, 1.0, 0.1]], np.float32)


def look(eye, at):
    """cam_from_world of a camera at `eye` whose axis meets `at`, world z up."""
    z = np.subtract(at, eye) / np.linalg.norm(np.subtract(at, eye))
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3], pose[:3, 3] = R, -R @ np.asarray(eye)
    return pose


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    path = tmp_path_factory.mktemp("arm") / "arm.xml"
    path.write_text(ARM)
    return load_robot(path)


@pytest.fixture(scope="module")
def camera():
    poses = [look([1.0, a, 0.7], [0.0, 0.0, 0.3]) for a in (0.5, 0.1, -0.6)]
    K = np.array([[90.0, 0.0, 41.0], [0.0, 85.0, 29.0], [0.0, 0.0, 1.0]], np.float32)
    return Camera(W, H, K, np.stack(poses))


@pytest.fixture(scope="module")
def view(arm, camera):
    return jax.tree.map(np.asarray, render_robot(arm, Q, camera))


def test_depth_pointmap_and_link_are_those_of_mujoco_rays(arm, camera, view):
    model, data = arm.mj_model, mujoco.MjData(arm.mj_model)
    u, v = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(camera.K.astype(float)).T
    for t, q in enumerate(Q):
        for name, value in zip(arm.joint_names, q, strict=True):
            data.joint(name).qpos = value
        mujoco.mj_kinematics(model, data)
        pose = camera.cam_from_world[t].astype(float)
        eye, axes = -pose[:3, :3].T @ pose[:3, 3], rays @ pose[:3, :3]
        geom, distance = np.zeros(H * W, np.int32), np.zeros(H * W)
        mujoco.mj_multiRay(
            model,
            data,
            eye,
            axes.reshape(-1),
            None,
            1,
            -1,
            geom,
            distance,
            None,
            H * W,
            1e9,
        )
        body = np.where(geom < 0, -1, model.geom_bodyid[geom]).reshape(H, W)
        names = [model.body(i).name for i in range(1, model.nbody)]
        links = np.array([-1, *map(arm.link_names.index, names), -1])
        depth = np.where(geom < 0, 0, distance).reshape(H, W)  # ray z is 1
        same = view.link[t] == links[body]
        assert same.mean() > 0.9995  # but for pixels on an edge, to float32
        seen = same & (body >= 0)
        assert seen.sum() > 300
        np.testing.assert_allclose(view.depth[t][seen], depth[seen], rtol=2e-5)
        points = depth[seen][:, None] * rays[seen]
        np.testing.assert_allclose(view.pointmap[t][seen], points, atol=3e-5)
    np.testing.assert_array_equal(view.mask, view.link >= 0)
    assert (view.pointmap[~view.mask] == 0).all()


def test_frames_together_are_frames_alone(arm, camera, view):
    for t in range(len(Q)):
        still = Camera(W, H, camera.K, camera.cam_from_world[t])
        alone = render_robot(arm, Q[t : t + 1], still)
        for one, many in zip(alone, view, strict=True):
            np.testing.assert_array_equal(one[0], many[t])


def test_camera_must_have_a_pose_for_each_frame(arm, camera):
    with pytest.raises(InputError, match="3 poses for 2 frames"):
        render_robot(arm, Q[:2], camera)


def test_nothing_to_draw_is_said(arm, camera):
    nothing = Triangles(*(a[:0] for a in arm.triangles))
    with pytest.raises(InputError, match="nothing to draw"):
        render_scene(nothing, arm.link_poses(Q), camera, Light())


def test_gradients_with_respect_to_joints_and_camera(arm, camera, view):
    poses = jnp.asarray(camera.cam_from_world)
    rng = np.random.default_rng(0)
    dq = jnp.asarray(rng.normal(size=Q.shape), jnp.float32)
    dt = jnp.zeros_like(poses).at[:, :3, 3].set(rng.normal(size=3))

    def points(q, poses):
        return render_robot(arm, q, Camera(W, H, jnp.asarray(camera.K), poses)).pointmap

    @jax.jit
    def push(q, poses):
        return jax.jvp(points, (q, poses), (dq, dt))

    q, step = jnp.asarray(Q), 2e-3
    plus, minus = (np.asarray(push(q + s * dq, poses + s * dt)[0]) for s in (step, -step))
    numeric = (plus - minus) / (2 * step)
    made, exact = (np.asarray(x) for x in push(q, poses))
    np.testing.assert_allclose(made, view.pointmap, atol=1e-5)
    # Away from edges of the silhouette and between faces both views see the same face.
    core = [binary_erosion(m, iterations=4) for m in view.mask]
    gap = np.abs(exact - numeric)[core] / (0.1 + np.abs(numeric[core]))
    assert len(gap) > 300 and np.quantile(gap, 0.8) < 0.01
    weight = rng.normal(size=exact.shape).astype(np.float32)
    gq, gp = jax.vjp(points, q, poses)[1](jnp.asarray(weight))
    backwards = np.sum(gq * dq) + np.sum(gp * dt)
    np.testing.assert_allclose(backwards, np.sum(weight * exact), rtol=1e-3)
    assert np.isfinite(gq).all() and np.isfinite(gp).all()


def test_lambert_shading(arm, camera):
    """Every colour in the picture is a face's albedo under the angle of its normal."""
    light = Light((0.0, 0.0, 2.0), ambient=0.25, diffuse=0.5)
    picture = draw_robot(arm, np.zeros_like(Q), camera, light)
    rgb, link = np.asarray(picture.rgb), np.asarray(picture.link)
    foot = rgb[link == arm.link_names.index("foot")]
    albedo = ((np.array([0.8, 0.2, 0.2]) + 0.055) / 1.055) ** 2.4
    # Its top faces the lamp, its sides are at a right angle to it.
    shades = [1.055 * (albedo * s) ** (1 / 2.4) - 0.055 for s in (0.75, 0.25)]
    top, side = (np.abs(foot - 255 * s).max(-1) <= 1 for s in shades)
    assert top.any() and side.any() and (top | side).all()
    assert (rgb[link < 0] == 0).all()


def test_the_same_shapes_compile_once(arm, camera):
    from w4d_jax.kin import render

    render_robot(arm, Q, camera)
    before = render._robot_view._cache_size()
    render_robot(arm, Q + 0.01, Camera(W, H, camera.K * 1.0, camera.cam_from_world))
    assert render._robot_view._cache_size() == before


def edge_band(mask):
    square = np.ones((3, 3))
    return binary_dilation(mask, square) & ~binary_erosion(mask, square)


@needs_calvin
@pytest.mark.parametrize("name", ["static", "opposing", "gripper"])
def test_calvin_cameras_see_our_robot(name):
    """A recording of PyBullet's renderer: masks agree but for edges, depth to 2 mm."""
    robot = load_calvin_panda()
    for episode in ("ep0_red", "ep1_blue"):
        with np.load(CALVIN / f"{episode}.npz") as data:
            frames = np.flatnonzero(data["gripper_width"] > 0.07)[::6]
            q = np.concatenate(
                [data["joint_positions"], data["gripper_width"][:, None] / 2], 1
            )
            world_from_base = np.eye(4)
            world_from_base[:3, 3] = data["robot_base_pos"]
            poses = np.broadcast_to(data[f"{name}_w2c"], (len(q), 4, 4)) @ world_from_base
            seg, K = data[f"seg_{name}"][frames], data[f"{name}_K"]
            depth = data[f"depth_{name}"][frames] / 1e4
            true = seg == data["seg_robot_id"]
            blocks = np.isin(seg, data["seg_block_ids"])
        view = render_robot(robot, q[frames], Camera(*seg.shape[:0:-1], K, poses[frames]))
        mask, z = np.asarray(view.mask), np.asarray(view.depth)
        hidden = mask & blocks & (depth < z)
        wrong = (mask != true) & ~hidden & ~np.stack([edge_band(m) for m in true])
        assert wrong.sum() < 0.005 * true.sum()
        near = mask & true & (depth < 6.5)  # u16 saturates at 6.5535 m
        assert np.median(np.abs(z - depth)[near]) < 2e-3


_loaded = {}


def load_calvin_panda():
    if not _loaded:
        _loaded["panda"] = load_robot(PANDA)
    return _loaded["panda"]


@pytest.fixture(scope="module")
def command():
    spec = importlib.util.spec_from_file_location(
        "render_robot_command", ROOT / "tools/render_robot.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def files(tmp_path, camera):
    (tmp_path / "arm.xml").write_text(ARM)
    np.savez(tmp_path / "q.npz", joint_names=["shoulder", "elbow", "slide"], q=Q)
    camera.to_json(tmp_path / "cam.json")
    return tmp_path


def arguments(folder):
    names = {
        "robot": "arm.xml",
        "joints": "q.npz",
        "camera": "cam.json",
        "out": "robot.npz",
    }
    return [x for key, name in names.items() for x in (f"--{key}", str(folder / name))]


def test_command_writes_what_render_robot_returns(command, files, view):
    assert command(arguments(files)) == 0
    with np.load(files / "robot.npz") as out:
        assert set(out.files) == {"pointmap", "mask", "depth", "link"}
        for name in out.files:
            np.testing.assert_array_equal(out[name], getattr(view, name))
    assert sorted(p.name for p in files.iterdir()) == [
        "arm.xml",
        "cam.json",
        "q.npz",
        "robot.npz",
    ]


def spoil_q(folder, **arrays):
    np.savez(
        folder / "q.npz", **{"joint_names": ["shoulder", "elbow", "slide"], "q": Q} | arrays
    )


def spoil_camera(folder, **entries):
    entry = json.loads((folder / "cam.json").read_text())
    (folder / "cam.json").write_text(json.dumps(entry | entries))


BEHIND = np.diag([-1.0, 1.0, -1.0, 1.0])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda d: spoil_q(d, q=np.full_like(Q, np.nan)), "NaN"),
        (lambda d: spoil_q(d, q=Q + 5), "shoulder"),
        (lambda d: spoil_q(d, joint_names=["a", "elbow", "slide"]), "shoulder"),
        (lambda d: spoil_q(d, q=Q[:2]), "3 poses"),
        (lambda d: (d / "q.npz").write_bytes(b"PK\x03\x04 cut"), "q.npz"),
        (lambda d: (d / "q.npz").unlink(), "q.npz"),
        (lambda d: (d / "arm.xml").write_text("<mujoco>"), "arm.xml"),
        (lambda d: spoil_camera(d, K=[[1, 2], [3, 4]]), "K"),
        (lambda d: spoil_camera(d, width=-3), "width"),
        (
            lambda d: spoil_camera(d, cam_from_world=BEHIND.tolist()),
            "no pixel",
        ),
        (lambda d: (d / "robot.npz").mkdir(), "robot.npz"),
    ],
)
def test_command_says_what_is_wrong_in_one_line(command, files, capsys, spoil, says):
    spoil(files)
    before = sorted(p.name for p in files.iterdir())
    assert command(arguments(files)) == 2
    message = capsys.readouterr().err
    assert says in message and message.count("\n") == 1, message
    assert sorted(p.name for p in files.iterdir()) == before
