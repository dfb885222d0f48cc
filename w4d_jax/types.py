"""The vocabulary of w4d_jax: axis letters, cameras, clips, and the error a user can mend.

Axes: B batch, V view, T frames, H W pixels, h w latent grid, t latent frames, L tokens or
links, D width, N heads, K head dimension, C channels, J joints. Shapes are written
`f32[T,H,W,3]`; `...` stands for any leading batch axes.

Frames read `a_from_b`: `x_a = a_from_b @ x_b`. Camera axes are OpenCV's (x right, y down,
z forward); pixel (row i, column j) has its centre at (u, v) = (j + 0.5, i + 0.5). Metres,
radians, seconds; quaternions w first. The world is the robot's base unless a file says
otherwise.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np


class InputError(ValueError):
    """What the user gave is wrong. One line: the thing, the numbers, the fix.

    Command lines print it and exit with status 2. Any other exception is a defect of ours.
    """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera, fixed or moving.

    width, height: pixels. K f32[3,3]: intrinsics in pixels.
    cam_from_world f32[4,4] or f32[T,4,4]: one pose, or one a frame.
    """

    width: int = dataclasses.field(metadata={"static": True})
    height: int = dataclasses.field(metadata={"static": True})
    K: Any
    cam_from_world: Any

    def __post_init__(self):
        # Tracers and abstract values pass through: only real numbers can be judged.
        if isinstance(self.K, (np.ndarray, list)):
            object.__setattr__(self, "K", _matrix(self.K, (3, 3), "camera K"))
            object.__setattr__(
                self,
                "cam_from_world",
                _matrix(self.cam_from_world, (4, 4), "camera cam_from_world", frames=True),
            )
            _check_camera(self)

    @classmethod
    def from_json(cls, path) -> "Camera":
        """Reads `{"width", "height", "K": 3x3, "cam_from_world": 4x4 or Tx4x4}`.

        Raises InputError naming the file for anything that is not such a camera.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            entry = json.loads(text)
        except (OSError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"camera {path}: cannot read it ({error})") from error
        except json.JSONDecodeError as error:
            raise InputError(f"camera {path}: not JSON ({error})") from error
        if not isinstance(entry, dict):
            raise InputError(f"camera {path}: a {type(entry).__name__}, need an object")
        missing = [k for k in ("width", "height", "K", "cam_from_world") if k not in entry]
        if missing:
            raise InputError(f"camera {path}: missing {', '.join(missing)}")
        for side in ("width", "height"):
            value = entry[side]
            if (
                isinstance(value, bool)
                or not isinstance(value, int)
                or not 0 < value <= 16384
            ):
                raise InputError(f"camera {path}: {side} {value!r}, need 1..16384 pixels")
        try:
            return cls(
                width=entry["width"],
                height=entry["height"],
                K=_matrix(entry["K"], (3, 3), "K"),
                cam_from_world=_matrix(
                    entry["cam_from_world"], (4, 4), "cam_from_world", frames=True
                ),
            )
        except InputError as error:
            raise InputError(f"camera {path}: {error}") from error

    def to_json(self, path) -> None:
        """Writes what `from_json` reads."""
        entry = {
            "width": self.width,
            "height": self.height,
            "K": np.asarray(self.K, np.float64).tolist(),
            "cam_from_world": np.asarray(self.cam_from_world, np.float64).tolist(),
        }
        Path(path).write_text(json.dumps(entry, indent=1), encoding="utf-8")

    def resized(self, height: int, width: int) -> "Camera":
        """The same view on another pixel grid: pixel edges, not centres, are scaled."""
        scale = np.diag([width / self.width, height / self.height, 1.0]).astype(np.float32)
        return Camera(width, height, scale @ self.K, self.cam_from_world)


def _matrix(value, shape: tuple[int, int], name: str, frames: bool = False) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            matrix = np.asarray(value, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name}: not a matrix of numbers") from error
    want = "x".join(map(str, shape))
    ranks = (2, 3) if frames else (2,)
    if matrix.shape[-2:] != shape or matrix.ndim not in ranks or 0 in matrix.shape:
        raise InputError(
            f"{name}: shape {matrix.shape}, need {want}{' or T' + want if frames else ''}"
        )
    if not np.isfinite(matrix).all():
        raise InputError(f"{name}: NaN or infinity")
    return matrix


def _check_camera(camera: Camera) -> None:
    K, pose = (
        np.asarray(camera.K, np.float64),
        np.asarray(camera.cam_from_world, np.float64),
    )
    if not (K[0, 0] > 0 and K[1, 1] > 0):
        raise InputError(
            f"K: focal lengths {K[0, 0]:g}, {K[1, 1]:g}, need both > 0 (pixels)"
        )
    if not (np.allclose(K[2], [0, 0, 1]) and K[1, 0] == 0):
        raise InputError(
            f"K: rows {K[1].tolist()}, {K[2].tolist()}, need [0, fy, cy], [0, 0, 1]"
        )
    R = pose[..., :3, :3]
    gap = np.abs(R @ np.swapaxes(R, -1, -2) - np.eye(3)).max()
    if not gap < 1e-3 or not (np.linalg.det(R) > 0).all():
        raise InputError(
            f"cam_from_world: not a rotation (R R' off by {gap:.2g}, need < 1e-3)"
        )
    if not np.allclose(pose[..., 3, :], [0, 0, 0, 1]):
        raise InputError("cam_from_world: last row must be 0 0 0 1")


class View(NamedTuple):
    """What one camera saw of an episode; every array numpy, on the host."""

    camera: Camera  # cam_from_world f32[4,4] or f32[T,4,4]; world = the robot's base
    rgb: np.ndarray  # u8[T,H,W,3] sRGB
    depth: np.ndarray  # f32[T,H,W] metres along the optical axis; 0 = unknown
    robot_depth: np.ndarray  # f32[T,H,W] the robot alone, from kinematics; 0 = no robot
    robot_rgb: np.ndarray  # u8[T,H,W,3] the same in its file's colours; black = no robot


class Clip(NamedTuple):
    """An episode or a window of one. Pointmaps are `kin.camera.pointmap(depth, camera)`:
    depth and camera hold them exactly, at a third of the bytes."""

    id: str  # unique in its source: what an error names
    views: dict[str, View]  # by camera name, e.g. "front", "side", "wrist"
    joint_names: tuple[str, ...]
    joints: np.ndarray  # f32[T,J] measured, radians or metres
    actions: (
        np.ndarray
    )  # f32[T,8] commanded: xyz + quaternion wxyz (base frame) + gripper width
    objects: np.ndarray  # f32[T,O,7] xyz + quaternion wxyz in the world; O may be 0
    fps: float
    meta: dict[str, Any]  # JSON values: task, success, near_miss, language, robot, ...
