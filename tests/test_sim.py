"""The simulated world against analytic geometry, published kinematics, and itself."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import mujoco
import numpy as np
import pytest

from w4d_jax.data.sim import SimSource, draw, script, source, world
from w4d_jax.kin import se3
from w4d_jax.kin.camera import pixel_rays
from w4d_jax.types import InputError

SEED, COUNT = 3, 500


@pytest.fixture(scope="module", autouse=True)
def optimised():
    """As users compile it: rounding that differs from program to program shows at edges."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def sim():
    return SimSource(SEED, COUNT)


@pytest.fixture(scope="module")
def clips(sim):
    """At least one of each task, good and near-miss."""
    return [sim[i] for i in range(12)]


def digest(clip) -> str:
    arrays = [clip.joints, clip.actions, clip.objects]
    for view in clip.views.values():
        arrays += [view.camera.K, view.camera.cam_from_world, *view[1:]]
    text = json.dumps([clip.id, clip.fps, clip.meta])
    return hashlib.sha256(
        b"".join([text.encode(), *(a.tobytes() for a in arrays)])
    ).hexdigest()


def test_clip_keeps_its_contract(sim, clips):
    T, H, W = sim.frames, sim.height, sim.width
    for i, clip in enumerate(clips):
        assert clip.id == f"sim-{SEED}-{i}"
        assert list(clip.views) == ["front", "side", "wrist"]
        for view in clip.views.values():
            assert view.rgb.shape == (T, H, W, 3) and view.rgb.dtype == np.uint8
            assert view.depth.shape == view.robot_depth.shape == (T, H, W)
            assert view.depth.dtype == view.robot_depth.dtype == np.float32
            assert (view.camera.height, view.camera.width) == (H, W)
        blocks = len(clip.meta["block_size"])
        assert clip.joints.shape == (T, len(clip.joint_names)) == (T, 8)
        assert clip.actions.shape == (T, 8) and clip.objects.shape == (T, blocks, 7)
        assert clip.joints.dtype == clip.actions.dtype == clip.objects.dtype == np.float32
        assert json.loads(json.dumps(clip.meta)) == clip.meta
    assert {clip.meta["task"] for clip in clips} == set(script.TASKS)
    assert {clip.meta["near_miss"] for clip in clips} == {True, False}


def test_only_the_views_and_frames_asked_for(sim, clips):
    small = SimSource(SEED, COUNT, frames=5, height=16, width=24, views=("side",))
    view = small[0].views
    assert list(view) == ["side"] and view["side"].rgb.shape == (5, 16, 24, 3)
    # The episode is the same one, seen at every second frame.
    np.testing.assert_array_equal(small[0].objects, clips[0].objects[::2])


def test_episode_is_a_function_of_seed_and_index(sim, clips):
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(sim.__getitem__, reversed(range(4))))[::-1]
    assert [digest(c) for c in again] == [digest(c) for c in clips[:4]]
    copy = pickle.loads(pickle.dumps(sim))  # as a worker process receives it
    assert digest(copy[np.int64(1)]) == digest(clips[1])
    assert digest(sim[-1]) == digest(sim[COUNT - 1])
    assert digest(SimSource(SEED + 1, COUNT)[0]) != digest(clips[0])
    with pytest.raises(IndexError):
        sim[COUNT]


def test_another_process_makes_the_same_episode(clips):
    code = f"import test_sim as t; print(t.digest(t.SimSource({SEED}, {COUNT})[0]))"
    here = Path(__file__).parent
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=here, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.split()[-1] == digest(clips[0])


def room_depth(rays, eye):
    """Where rays f64[...,3] from inside leave the room: depth f64[...]."""
    with np.errstate(divide="ignore"):
        ends = (draw.ROOM[:, None, None] - eye) / rays
    return ends.max(0).min(-1)


def box_depth(rays, eye, half):
    """Where rays enter the box |x| <= half from outside; inf where they miss. Slabs."""
    with np.errstate(divide="ignore"):
        ends = (np.stack([-half, half])[:, None, None] - eye) / rays
    near, far = ends.min(0).max(-1), ends.max(0).min(-1)
    return np.where((near <= far) & (near > 0), near, np.inf)


@pytest.mark.parametrize("name", ["front", "side", "wrist"])
def test_depth_is_the_analytic_scene(clips, name):
    """Room and blocks from the recorded poses, robot from its own depth, one hit a ray."""
    for clip in clips[:4]:
        view = clip.views[name]
        poses = np.broadcast_to(view.camera.cam_from_world, (len(view.rgb), 4, 4))
        camera_rays = np.asarray(
            pixel_rays(view.camera.K, *view.depth.shape[1:]), np.float64
        )
        for t, cam_from_world in enumerate(poses.astype(np.float64)):
            world_from_cam = np.linalg.inv(cam_from_world)
            rays, eye = camera_rays @ world_from_cam[:3, :3].T, world_from_cam[:3, 3]
            robot = view.robot_depth[t]
            depth = np.minimum(np.where(robot > 0, robot, np.inf), room_depth(rays, eye))
            for pose, half in zip(clip.objects[t], clip.meta["block_size"], strict=True):
                block = np.asarray(se3.pose_from_xyz_quat(pose), np.float64)
                R, p = block[:3, :3], block[:3, 3]
                depth = np.minimum(
                    depth, box_depth(rays @ R, (eye - p) @ R, np.array(half))
                )
            differs = np.abs(view.depth[t] - depth) > 2e-4
            assert differs.mean() < 1e-3  # rays that graze an edge


def test_the_robot_is_where_it_is_seen(clips):
    for clip in clips:
        for view in clip.views.values():
            assert (view.depth > 0).all()  # the room is closed
            known = view.robot_depth > 0
            assert (view.depth[known] <= view.robot_depth[known] + 1e-5).all()
        for name in ("front", "side"):  # where blocks hide little of it
            view = clip.views[name]
            known = view.robot_depth > 0
            assert np.mean(view.depth[known] >= view.robot_depth[known] - 1e-5) > 0.9


def test_blocks_show_the_colour_they_are_said_to_have(clips):
    for clip in clips:
        view = clip.views["front"]
        target = clip.objects[0, clip.meta["target"], :3]
        cam = view.camera.cam_from_world @ [*target, 1.0]
        u, v, _ = view.camera.K @ (cam[:3] / cam[2])
        seen = view.rgb[0, int(v), int(u)] / 255.0
        told = np.array(clip.meta["block_colors"][clip.meta["target"]])
        # Light scales linear radiance alike in all channels.
        seen, told = (
            np.where(c > 0.04, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
            for c in (seen, told)
        )
        np.testing.assert_allclose(seen / seen.max(), told / told.max(), atol=0.02)


def test_wrist_camera_is_fixed_to_the_hand(clips):
    """Oracle: C MuJoCo's forward kinematics."""
    model = source.arm().mj_model
    data = mujoco.MjData(model)
    for clip in clips[:4]:
        for q, pose in zip(
            clip.joints, clip.views["wrist"].camera.cam_from_world, strict=True
        ):
            data.qpos[:] = [*q, q[7]]
            mujoco.mj_kinematics(model, data)
            camera = data.body("wrist_camera")
            world_from_cam = np.linalg.inv(pose.astype(np.float64))
            np.testing.assert_allclose(world_from_cam[:3, 3], camera.xpos, atol=1e-5)
            np.testing.assert_allclose(
                world_from_cam[:3, :3], camera.xmat.reshape(3, 3), atol=1e-5
            )


def test_actions_lead_the_measured_hand(clips):
    robot = source.arm()
    for clip in clips:
        tool = robot.link_poses(clip.joints)[:, robot.link_index("tool")]
        tool = np.asarray(se3.xyz_quat_from_pose(tool))
        np.testing.assert_allclose(clip.actions[0, :7], tool[0], atol=1e-4)
        gap = np.linalg.norm(clip.actions[:, :3] - tool[:, :3], axis=-1)
        assert gap.max() < 0.03 and gap[-1] < 2e-3
        assert ((clip.actions[:, 7] >= 0) & (clip.actions[:, 7] <= 0.08)).all()


def test_frames_span_the_whole_act(clips):
    for clip in clips:
        still = np.abs(clip.objects[0] - clip.objects[1])[:, :3].max()
        assert still < 1e-3  # blocks lie at rest before the hand comes
        seconds = (len(clip.joints) - 1) / clip.fps
        assert 2.0 < seconds < 6.5


@pytest.mark.parametrize("task", script.TASKS)
@pytest.mark.parametrize("miss", [False, True])
def test_physics_judges(task, miss):
    """What the labels promise, on final poses alone and in words of its own."""
    for i in range(10):
        rng = np.random.default_rng((17, i))
        blocks, job, path = script.sample(rng, (task,), float(miss))
        objects = world.roll(blocks, source.command(source.arm(), path)).objects
        start, end = objects[0, job.target, :3], objects[-1, job.target, :3]
        done = {
            "pick": end[2] - start[2] > 0.08,
            "push": end[2] < 0.04 and np.linalg.norm((end - start)[:2]) > 0.05,
            "stack": end[2] > 0.07,
        }[task]
        assert job.near_miss == miss
        assert script.succeeded(job, objects) == done == (not miss)
        if miss:  # by centimetres: the block was not carried off either
            assert np.linalg.norm(end - job.goal) < 0.25
        if miss and task != "stack":
            assert np.linalg.norm(end - start) < 0.02
        others = [k for k in range(len(blocks.yaw)) if k not in (job.target, job.base)]
        assert np.abs(objects[-1, others] - objects[0, others]).max(initial=0.0) < 0.02
        assert np.isfinite(objects).all() and (objects[..., 2] > 0.01).all()


def test_the_share_of_near_misses_is_as_set():
    draws = [
        script.sample(np.random.default_rng((1, i)), script.TASKS, 0.35)[1]
        for i in range(400)
    ]
    share = np.mean([task.near_miss for task in draws])
    assert abs(share - 0.35) < 3 * np.sqrt(0.35 * 0.65 / 400)
    for name in script.TASKS:
        share = np.mean([task.name == name for task in draws])
        assert abs(share - 1 / 3) < 3 * np.sqrt(2 / 9 / 400)


def test_arm_has_the_published_kinematics():
    """The Panda's modified Denavit-Hartenberg table (a, d, alpha); flange at 0.107 m."""
    a = [0, 0, 0, 0.0825, -0.0825, 0, 0.088]
    d = [0.333, 0, 0.316, 0, 0.384, 0, 0]
    alpha = np.array([0, -1, 1, 1, -1, 1, 1]) * np.pi / 2
    robot = source.arm()
    for q in robot.sample(20, seed=4).astype(np.float64):
        pose = np.eye(4)
        for i in range(7):
            ca, sa, cq, sq = np.cos(alpha[i]), np.sin(alpha[i]), np.cos(q[i]), np.sin(q[i])
            pose = pose @ [
                [cq, -sq, 0, a[i]],
                [sq * ca, cq * ca, -sa, -d[i] * sa],
                [sq * sa, cq * sa, ca, d[i] * ca],
                [0, 0, 0, 1],
            ]
        ours = robot.link_poses(q.astype(np.float32))
        np.testing.assert_allclose(ours[robot.link_index("link7")], pose, atol=1e-5)
        hand = (pose @ [0, 0, 0.107, 1])[:3]
        np.testing.assert_allclose(ours[robot.link_index("hand")][:3, 3], hand, atol=1e-5)
    assert len(robot.triangles.link) <= 1500


@pytest.mark.parametrize(
    "wrong",
    [
        {"views": ("top",)},
        {"views": ()},
        {"tasks": ("juggle",)},
        {"frames": 0},
        {"seed": -1},
        {"near_miss": 1.5},
        {"near_miss": float("nan")},
        {"width": 0},
    ],
    ids=str,
)
def test_wrong_settings_are_refused_in_one_line(wrong):
    with pytest.raises(InputError) as error:
        SimSource(**({"seed": 0, "count": 1} | wrong))
    assert "\n" not in str(error.value) and "need" in str(error.value)
