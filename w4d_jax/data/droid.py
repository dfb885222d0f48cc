"""DROID episodes in Ctrl-World's layout as clips in the robot's base frame.

    FOLDER/annotation/**/ID.json    texts, joints or observation.state.*, states, action.*
    FOLDER/videos/**/ID/{0,1,2}.mp4  exterior_1, exterior_2, wrist

DROID ships no depth here (0 = unknown throughout) and no calibration that can be trusted:
its own extrinsics are off by up to 16 cm where they were checked. So a view is read either
with a camera that the user measured, and then gets the robot's exact depth, or as one of
`uncalibrated`: then its K is a ZED's prior, its pose the identity, its robot depth 0, and
meta["calibrated"] says so. The pipeline refuses such a view where it needs geometry.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from w4d_jax.data.video import read_video
from w4d_jax.kin import load_robot, se3
from w4d_jax.kin.render import draw_robot
from w4d_jax.types import Camera, Clip, InputError, View

VIEWS = ("exterior_1", "exterior_2", "wrist")
OPEN_WIDTH = 0.085  # metres: Robotiq 2F-85; DROID's gripper value is 0 open, 1 closed
# fx of ZED cameras at 1280x720, the median of those met in DROID; centre near the middle.
ZED_FOCAL = {"exterior_1": 528.0, "exterior_2": 528.0, "wrist": 732.0}
STRIDE = 3  # rows of the 15 Hz tables to a video frame


class DroidSource:
    """One clip for each annotation. Slow, as it renders the robot: prepare once.

    robot: the URDF, 7 arm joints and one gripper joint that closes at its upper limit.
    cameras: for each calibrated view the file `Camera.from_json` reads, at any resolution;
        "{id}" in it stands for the episode (val/0001 reads as val_0001).
    mounts: for a view that rides on a link, that link; its file then holds cam_from_link.
    uncalibrated: further views to read without geometry.
    """

    def __init__(self, folder, robot, cameras=None, mounts=None, uncalibrated=()):
        self.folder = Path(folder)
        self.files = sorted((self.folder / "annotation").glob("**/*.json"))
        if not self.files:
            raise InputError(f"droid {folder}: no annotation/**/*.json there")
        self.cameras, self.mounts = dict(cameras or {}), dict(mounts or {})
        self.uncalibrated = tuple(uncalibrated)
        named = [*self.cameras, *self.uncalibrated]
        if not named or set(named) - set(VIEWS) or len(set(named)) < len(named):
            raise InputError(f"droid views {named}: need some of {list(VIEWS)}, each once")
        if set(self.mounts) - set(self.cameras):
            raise InputError(f"droid mounts {list(self.mounts)}: need a camera for each")
        self.robot = load_robot(robot)
        if len(self.robot.joint_names) != 8:
            raise InputError(
                f"droid: robot {self.robot.path} has the free joints "
                f"{', '.join(self.robot.joint_names)}; need 7 and a gripper"
            )
        for link in self.mounts.values():
            self.robot.link_index(link)

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return (
            f"DroidSource({self.folder}, {self.robot.path}, {self.cameras}, {self.mounts}, "
            f"{self.uncalibrated})"
        )

    def __getitem__(self, i) -> Clip:
        file = self.files[i]
        name = str(file.relative_to(self.folder / "annotation").with_suffix(""))
        try:
            return self._clip(name, json.loads(file.read_text(encoding="utf-8")))
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        except OSError as error:
            raise InputError(f"{file}: cannot read it ({error.strerror})") from error
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise InputError(f"{file}: not a DROID annotation ({error!r})") from error

    def _clip(self, name: str, note: dict) -> Clip:
        videos = {view: self._video(note, view) for view in VIEWS if self._wanted(view)}
        table, origin = _table(note)
        lengths = {view: len(rgb) for view, (rgb, _) in videos.items()} | {
            "states": len(table)
        }
        frames = min(lengths.values())
        if max(lengths.values()) - frames > 1:
            raise InputError(f"lengths {lengths} differ by more than one frame")
        table = table[:frames]
        joints = table[:, :8].astype(np.float32)
        joints[:, 7] *= self.robot.limits[7, 1]
        self.robot.check(joints)
        turn = Rotation.from_euler("xyz", table[:, 11:14]).as_quat(scalar_first=True)
        opening = OPEN_WIDTH * (1 - table[:, 14:])
        actions = np.hstack([table[:, 8:11], turn, opening]).astype(np.float32)
        views = {
            v: self._view(v, name, rgb[:frames], joints) for v, (rgb, _) in videos.items()
        }
        text = note.get("texts") or [""]
        return Clip(
            id=name,
            views=views,
            joint_names=self.robot.joint_names,
            joints=joints,
            actions=actions,
            objects=np.zeros((frames, 0, 7), np.float32),
            fps=next(iter(videos.values()))[1],
            meta={
                "task": "droid",
                "language": str(text[0]),
                "success": note.get("success"),
                "robot": self.robot.name,
                "reach": self.robot.reach,
                "tool": "panda_link8",
                "actions": origin,
                "calibrated": {view: view in self.cameras for view in views},
                "frames_cut": {k: n - frames for k, n in lengths.items() if n > frames},
            },
        )

    def _wanted(self, view: str) -> bool:
        return view in self.cameras or view in self.uncalibrated

    def _video(self, note: dict, view: str) -> tuple[np.ndarray, float]:
        return read_video(self.folder / note["videos"][VIEWS.index(view)]["video_path"])

    def _view(self, view: str, name: str, rgb: np.ndarray, joints: np.ndarray) -> View:
        frames, height, width, _ = rgb.shape
        unknown = np.zeros((frames, height, width), np.float32)
        if view in self.uncalibrated:
            f = ZED_FOCAL[view]
            K = np.array([[f, 0, 640], [0, f, 360], [0, 0, 1]], np.float32)
            camera = Camera(1280, 720, K, np.eye(4, dtype=np.float32))
            return View(camera.resized(height, width), rgb, unknown, unknown, 0 * rgb)
        path = self.cameras[view].replace("{id}", name.replace("/", "_"))
        camera = Camera.from_json(path)
        if view in self.mounts:
            link = self.robot.link_index(self.mounts[view])
            base_from_link = self.robot.link_poses(joints)[:, link]
            pose = np.asarray(camera.cam_from_world @ se3.invert(base_from_link))
            camera = dataclasses.replace(camera, cam_from_world=pose)
        camera = camera.resized(height, width)
        if np.shape(camera.cam_from_world) not in ((4, 4), (frames, 4, 4)):
            raise InputError(
                f"camera {path}: {len(camera.cam_from_world)} poses, "
                f"{view} has {frames} frames"
            )
        robot = draw_robot(self.robot, joints, camera)
        return View(camera, rgb, unknown, np.asarray(robot.depth), np.asarray(robot.rgb))


def _table(note: dict) -> tuple[np.ndarray, str]:
    """f64[T,15]: 7 joints, gripper, commanded xyz, Euler xyz, gripper; and their origin."""
    if "action.cartesian_position" in note:
        names = (
            "observation.state.joint_position",
            "observation.state.gripper_position",
            "action.cartesian_position",
            "action.gripper_position",
        )
        parts = [_rows(note[name])[::STRIDE] for name in names]
        origin = "commands"
    else:
        parts = [_rows(note[name]) for name in ("joints", "states")]
        origin = "measured poses: no commands in the file"
    counts = {len(p) for p in parts}
    if len(counts) != 1:
        raise InputError(f"tables of {sorted(counts)} rows, need one length")
    table = np.hstack(parts)
    if table.shape[1] != 15 or not len(table):
        raise InputError(f"{table.shape[1]} columns of joints, gripper and poses, need 15")
    if not np.isfinite(table).all():
        raise InputError("joints, gripper and poses hold NaN or infinity")
    return table, origin


def _rows(values) -> np.ndarray:
    rows = np.asarray(values, np.float64)
    return rows[:, None] if rows.ndim == 1 else rows
