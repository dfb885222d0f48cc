"""What the hand would take along: when it met it, and where it would be seen."""

import numpy as np
from golden import jit
from scipy.spatial.transform import Rotation

from w4d_jax.data.sim import SimSource
from w4d_jax.data.sim.source import arm
from w4d_jax.kin import se3
from w4d_jax.kin.carry import REACH, VIEW, Grip, around, carried, follow, from_hand, held
from w4d_jax.kin.gripper import grip_actions, grip_point, hand_link

OPEN = 0.08


def test_when_things_are_met_and_let_go():
    for height, opening, met, last in (
        # pick: down, shut, up
        ([0.2, 0.1, 0.03, 0.03, 0.1, 0.2], [OPEN, OPEN, OPEN, 0, 0, 0], 2, [3, 4, 5]),
        # pick that came down between two frames, already shut in the second
        ([0.2, 0.1, 0.1, 0.03, 0.1, 0.2], [OPEN, OPEN, OPEN, 0, 0, 0], 3, [3, 4, 5]),
        # push with a fist, then up: what is pushed stays on the table
        ([0.2, 0.1, 0.03, 0.03, 0.03, 0.2], [0, 0, 0, 0, 0, 0], 2, [3, 4, 4]),
        # open all the while: holds nothing
        ([0.2, 0.03, 0.03, 0.03, 0.1, 0.2], [OPEN] * 6, 1, [1, 1, 1]),
        # put down and let go
        ([0.2, 0.03, 0.1, 0.05, 0.05, 0.2], [OPEN, 0, 0, 0, OPEN, OPEN], 1, [3, 3, 3]),
    ):
        found = held(np.array(height, np.float32), np.array(opening, np.float32))
        assert found[0][-1] == met
        np.testing.assert_array_equal(found[1][3:], last)
        assert (found[0] <= found[1]).all() and (found[1] <= np.arange(6)).all()
    on_its_way = held(np.linspace(0.3, 0.1, 6), np.full(6, OPEN))
    np.testing.assert_array_equal(on_its_way, np.tile(np.arange(6), (2, 1)))


def test_a_plane_before_the_camera_moves_exactly():
    """One metre ahead, 20 px to the metre: 0.1 m is 2 px."""
    size, K = 32, np.array([[20, 0, 16], [0, 20, 16], [0, 0, 1]], np.float32)
    image = np.random.default_rng(0).random((size, size, 3), np.float32)
    pose = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    pose[:, 2, 3] = 1.0
    last = pose.copy()
    last[1, :2, 3] = 0.1, -0.05
    last[2, :3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    cameras = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    made = carried(
        np.tile(image, (3, 1, 1, 1)),
        K,
        cameras,
        Grip(np.ones(3, bool), pose, last, np.full(3, REACH)),
    )
    np.testing.assert_allclose(made[0], image, atol=1e-5)
    np.testing.assert_allclose(made[1, :-1, 2:], image[1:, :-2], atol=1e-4)
    np.testing.assert_allclose(made[2], np.rot90(image, -1), atol=1e-4)
    depth, near = around(K, cameras, last, REACH, size, size)
    assert (np.asarray(depth) == 1).all()
    centre = np.argwhere(near[1]).mean(0) + 0.5
    np.testing.assert_allclose(centre, [15, 18], atol=0.51)
    assert abs(np.sqrt(np.asarray(near[0]).sum() / np.pi) / 20 - REACH) < 0.01


def test_blocks_that_are_lifted_are_where_they_are_drawn():
    """In good picks the drawing shows the block better than the still image does."""
    source = SimSource(5, 6, views=("front",), tasks=("pick",), near_miss=0.0)
    draw = jit(lambda image, K, poses, act: carried(image, K, poses, follow(act)))
    gains = []
    for clip in source:
        camera, rgb = clip.views["front"].camera, clip.views["front"].rgb.astype(np.float32)
        poses = np.tile(camera.cam_from_world, (len(rgb), 1, 1))
        made = np.asarray(
            draw(np.tile(rgb[0], (len(rgb), 1, 1, 1)), camera.K, poses, clip.actions)
        )[-1]
        colour = np.array(clip.meta["block_colors"][clip.meta["target"]])
        hue = rgb[-1] / np.linalg.norm(rgb[-1], axis=-1, keepdims=True)
        seen = hue @ (colour / np.linalg.norm(colour)) > 0.98
        seen &= clip.views["front"].robot_depth[-1] == 0
        errors = [np.abs(x - rgb[-1])[seen].mean() for x in (made, rgb[0])]
        gains.append(errors[0] / errors[1])
    assert np.median(gains) < 0.5, gains


def test_the_hand_sees_the_plane_that_its_fingers_close_in():
    """A camera 1 m above a table on which every place shows its own x and y."""
    size, K = 64, np.array([[100, 0, 32], [0, 100, 32], [0, 0, 1]], np.float32)
    cam_from_world = np.diag([1, -1, -1, 1]).astype(np.float32)
    cam_from_world[:3, 3] = 0.1, -0.2, 1.0
    pixel = (np.arange(size) + 0.5 - 32) / 100
    x, y = np.meshgrid(pixel - 0.1, -pixel - 0.2)
    image = np.stack([x, y], -1).astype(np.float32)
    turn = Rotation.from_euler("xz", [180, 30], degrees=True).as_matrix()
    pose = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    pose[0, :3, :3], pose[0, :2, 3] = turn, (-0.05, -0.25)
    pose[1, 2, 3] = 1.5  # behind the camera
    seen = from_hand(image, K, cam_from_world, pose)
    assert seen.shape == (2, VIEW, VIEW, 2)
    at = REACH * ((np.arange(VIEW) + 0.5) / VIEW * 2 - 1)
    x, y = np.meshgrid(at, at)
    want = np.stack([x, y], -1) @ turn[:2, :2].T + pose[0, :2, 3]
    np.testing.assert_allclose(seen[0], want, atol=1e-5)
    assert not np.asarray(seen[1]).any()


def test_a_grasp_and_a_near_miss_look_different_from_the_hand():
    """The block's colour is in the middle of the hand in one, beside it in the other."""
    see = jit(lambda *a: from_hand(*a[:3], follow(a[3]).met[-1:])[0])
    middle = slice(VIEW // 2 - 2, VIEW // 2 + 2)
    shares = {0.0: [], 1.0: []}
    for near_miss, found in shares.items():
        for clip in SimSource(7, 6, views=("front",), tasks=("pick",), near_miss=near_miss):
            camera, rgb = clip.views["front"].camera, clip.views["front"].rgb[0]
            seen = see(
                rgb.astype(np.float32), camera.K, camera.cam_from_world, clip.actions
            )
            hue = seen / np.linalg.norm(seen, axis=-1, keepdims=True)
            colour = np.array(clip.meta["block_colors"][clip.meta["target"]])
            alike = hue @ (colour / np.linalg.norm(colour)) > 0.98
            columns = np.asarray(alike)[: VIEW // 2].mean(0)
            found.append(columns[middle].sum() / max(columns.sum(), 1e-6))
    assert min(shares[0.0]) > max(shares[1.0]), shares


def test_the_grip_of_joints_is_that_of_actions():
    robot = arm()
    assert hand_link(robot) == "hand"
    np.testing.assert_allclose(grip_point(robot), [0, 0, 0.1034], atol=0.01)
    joints = robot.sample(20)
    made = grip_actions(robot, joints)
    tool = robot.link_poses(joints)[:, robot.link_index("tool")]
    np.testing.assert_allclose(made[:, :3], tool[:, :3, 3], atol=0.01)
    turn = se3.pose_from_xyz_quat(made[:, :7])[:, :3, :3]
    np.testing.assert_allclose(turn, tool[:, :3, :3], atol=1e-5)
    np.testing.assert_allclose(made[:, 7], 2 * joints[:, 7], atol=1e-6)
