"""How far a wrist camera is from the true one: pose, field of view, pixels, points.

A network's unit of length is its own. What it says is brought to metres first: by `metres`
with the points that it says and the true ones, one number for a sample. Nothing else is
aligned: both stand in the first anchor's frame, and a wrong rotation is to be seen.
"""

from typing import NamedTuple

import numpy as np

from w4d_jax.kin.pose import mean_pose


class Wrist(NamedTuple):
    """The wrist camera of a moment, and the points that anchors show: of H x W pixels, in
    metres, in the frame of the first anchor's camera."""

    cam_from_world: np.ndarray  # f[4,4]
    K: np.ndarray  # f[3,3]
    points: np.ndarray | None = None  # f[V,H,W,3]; None: nothing is said


def wrist_scores(said: Wrist, true: Wrist, valid, seen, height: int, width: int) -> dict:
    """valid bool[V,H,W]: where points are known; seen f[N,3]: what the wrist camera sees,
    in the same frame; height, width: of its image."""
    errors = pose_errors(said.cam_from_world, true.cam_from_world)
    cameras = (said.K, said.cam_from_world), (true.K, true.cam_from_world)
    scores = {
        "wrist_translation": float(errors["translation"]),
        "wrist_rotation": float(errors["rotation"]),
        "wrist_field": float(field_errors(said.K, true.K, height, width)),
        "wrist_reprojection": reprojection_error(seen, *cameras, height, width),
    }
    if said.points is not None:
        scores["anchor_points"] = point_error(said.points, true.points, valid)
    return scores


def mean_wrist(poses, K) -> Wrist:
    """The camera in the middle of cameras f[N,4,4] and f[N,3,3] (`mean_pose`), with the
    mean of their intrinsics."""
    return Wrist(mean_pose(poses), K.mean(0))


def pose_errors(cam_from_world, truth) -> dict[str, np.ndarray]:
    """Poses f[...,4,4] in metres -> translation (metres, between the camera's places) and
    rotation (degrees), f[...] each."""
    a, b = (np.asarray(x, np.float64) for x in (cam_from_world, truth))
    apart = np.linalg.norm(a[..., :3, :3] - b[..., :3, :3], axis=(-2, -1))
    # |R - S| = 2 sqrt(2) sin(angle / 2): exact for the smallest angles too.
    angle = 2 * np.arcsin(np.minimum(apart / 8**0.5, 1))
    return {
        "translation": np.linalg.norm(_place(a) - _place(b), axis=-1),
        "rotation": np.rad2deg(angle),
    }


def field_errors(K, truth, height: int, width: int) -> np.ndarray:
    """Intrinsics f[...,3,3] -> how many degrees the fields of view differ: f[...], the mean
    of vertical and horizontal."""

    def fields(K):
        focal = np.stack([K[..., 1, 1], K[..., 0, 0]], -1)
        return 2 * np.arctan(np.array([height, width]) / (2 * focal))

    return np.rad2deg(np.abs(fields(K) - fields(truth)).mean(-1))


def reprojection_error(points, camera, truth, height: int, width: int) -> float:
    """Mean distance in pixels between where points f[N,3] lie and where they should.

    camera, truth: (K f[3,3], cam_from_world f[4,4]). Points that the true one sees count,
    at most the image's diagonal, and that much behind the camera. NaN: no point is seen.
    """
    (uv, front), (true, seen) = (_project(points, *x) for x in (camera, truth))
    seen &= ((true >= 0) & (true < [width, height])).all(-1)
    if not seen.any():
        return float("nan")
    diagonal = np.hypot(height, width)
    distance = np.minimum(np.linalg.norm(uv - true, axis=-1), diagonal)
    return float(np.where(front, distance, diagonal)[seen].mean())


def point_error(points, truth, valid) -> float:
    """Mean distance in metres of points f[...,3] to the true ones where valid bool[...];
    NaN: nowhere."""
    if not valid.any():
        return float("nan")
    return float(np.linalg.norm(points[valid] - truth[valid], axis=-1).mean())


def metres(points, truth, valid) -> float:
    """Metres in a network's unit of length: the median ratio of distances from the first
    anchor's camera, points f[...,3] in its frame. NaN: nowhere valid bool[...]."""
    said, true = (np.linalg.norm(x[valid], axis=-1) for x in (points, truth))
    return float(np.median(true[said > 0] / said[said > 0])) if (said > 0).any() else np.nan


def scaled(cam_from_world, unit: float) -> np.ndarray:
    """Poses f[...,4,4] in a unit of so many metres -> in metres."""
    poses = np.array(cam_from_world, np.float64)
    poses[..., :3, 3] *= unit
    return poses


def _place(cam_from_world):
    """Where the camera stands, f[...,3]."""
    R, t = cam_from_world[..., :3, :3], cam_from_world[..., :3, 3]
    return -np.einsum("...ji,...j->...i", R, t)


def _project(points, K, cam_from_world):
    """Pixels f[N,2], and which are in front of the camera."""
    seen = points @ cam_from_world[:3, :3].T.astype(np.float64) + cam_from_world[:3, 3]
    front = seen[:, 2] > 0
    uvw = np.where(front[:, None], seen, 1.0) @ np.asarray(K, np.float64).T
    return uvw[:, :2] / uvw[:, 2:], front
