"""CALVIN episodes, one .npz each, as clips in the robot's base frame.

A file holds, for the cameras static, opposing and gripper: rgb_*, depth_* (u16, 0.1 mm;
65535 = beyond range), *_K, *_w2c; joint_positions, gripper_width, tcp_pose, actions
(absolute: xyz, extrinsic xyz Euler angles, gripper +1 open / -1 closed), block_positions,
robot_base_pos (the robot's base in CALVIN's world, unrotated), language, success.
Clips keep everything but the object ids, and gain the robot's own depth (kinematics).
"""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from w4d_jax.kin import load_robot
from w4d_jax.kin.render import draw_robot
from w4d_jax.npz import read_npz
from w4d_jax.types import Camera, Clip, InputError, View

FPS = 30.0  # CALVIN's control rate
OPEN_WIDTH = 0.08  # metres between open fingers

_CAMERAS = {"static": "f 4 4", "opposing": "f 4 4", "gripper": "f T 4 4"}
_ARRAYS = {
    "joint_positions": "f T 7",
    "gripper_width": "f T",
    "actions": "f T 7",
    "block_positions": "f T O 3",
    "robot_base_pos": "f 3",
    "language": "U",
    "success": "b1",
}
for _name, _pose in _CAMERAS.items():
    _ARRAYS[f"rgb_{_name}"] = f"u1 T H{_name} W{_name} 3"
    _ARRAYS[f"depth_{_name}"] = f"u2 T H{_name} W{_name}"
    _ARRAYS[f"{_name}_K"] = "f 3 3"
    _ARRAYS[f"{_name}_w2c"] = _pose


class CalvinSource:
    """One clip for each .npz of a folder. Slow, as it renders the robot: prepare once.

    robot: the arm's URDF, 7 joints and a finger (the second finger mimics it or is free).
    """

    def __init__(self, folder, robot):
        self.files = sorted(Path(folder).glob("*.npz"))
        if not self.files:
            raise InputError(f"calvin {folder}: no .npz files there")
        self.robot = load_robot(robot)
        if len(self.robot.joint_names) not in (8, 9):
            raise InputError(
                f"calvin: robot {self.robot.path} has the free joints "
                f"{', '.join(self.robot.joint_names)}; need 7 and one or two fingers"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return f"CalvinSource({self.files[0].parent}, {self.robot.path})"

    def __getitem__(self, i) -> Clip:
        file = self.files[i]
        x = read_npz(file, _ARRAYS)
        try:
            return self._clip(file.stem, x)
        except InputError as error:
            raise InputError(f"{file}: {error}") from error

    def _clip(self, name: str, x: dict[str, np.ndarray]) -> Clip:
        fingers = len(self.robot.joint_names) - 7
        width = np.repeat(x["gripper_width"][:, None], fingers, 1)
        joints = np.concatenate([x["joint_positions"], width / 2], 1).astype(np.float32)
        self.robot.check(joints)
        base = x["robot_base_pos"].astype(np.float64)
        blocks = x["block_positions"] - base
        upright = np.broadcast_to([1.0, 0, 0, 0], (*blocks.shape[:2], 4))
        position = x["actions"][:, :3] - base
        turn = Rotation.from_euler("xyz", x["actions"][:, 3:6]).as_quat(scalar_first=True)
        opening = OPEN_WIDTH * (x["actions"][:, 6:] + 1) / 2
        return Clip(
            id=name,
            views={camera: self._view(camera, x, base, joints) for camera in _CAMERAS},
            joint_names=self.robot.joint_names,
            joints=joints,
            actions=np.hstack([position, turn, opening]).astype(np.float32),
            objects=np.concatenate([blocks, upright], -1).astype(np.float32),
            fps=FPS,
            meta={
                "task": "pick",
                "language": str(x["language"]),
                "success": bool(x["success"]),
                "robot": self.robot.name,
                "reach": self.robot.reach,
                "tool": "tcp",
                "object_orientation": "not recorded, set to identity",
            },
        )

    def _view(self, name: str, x: dict[str, np.ndarray], base, joints) -> View:
        rgb, ticks = x[f"rgb_{name}"], x[f"depth_{name}"]
        _, height, width, _ = rgb.shape
        cam_from_base = x[f"{name}_w2c"].astype(np.float64)
        cam_from_base[..., :3, 3] += cam_from_base[..., :3, :3] @ base
        camera = Camera(width, height, x[f"{name}_K"], cam_from_base)
        depth = np.where(ticks == 65535, 0, ticks).astype(np.float32) / np.float32(1e4)
        robot = draw_robot(self.robot, joints, camera)
        return View(camera, rgb, depth, np.asarray(robot.depth), np.asarray(robot.rgb))
