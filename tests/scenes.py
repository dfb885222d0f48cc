"""A scene with exact geometry, in float64: a table and a card that hovers over it."""

import numpy as np

from w4d_jax.kin.match import Seen

CARD = 0.15, 0.1  # metres: its height, half its side


def looking(eye, target) -> np.ndarray:
    """cam_from_world f64[4,4] of an upright camera."""
    z = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    x = np.cross(z, [0, 0, 1]) / np.linalg.norm(np.cross(z, [0, 0, 1]))
    R = np.stack([x, np.cross(z, x), z])
    return np.block([[R, -(R @ eye)[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])


def cast(K, cam_from_world, u, v) -> np.ndarray:
    """Depth of the first surface on the rays through pixels (u, v); 0 = none."""
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T
    R, t = cam_from_world[:3, :3], cam_from_world[:3, 3]
    rays, eye = rays @ R, -R.T @ t
    with np.errstate(divide="ignore"):
        to_card, to_table = ((height - eye[2]) / rays[..., 2] for height in (CARD[0], 0.0))
    hit = eye + to_card[..., None] * rays
    on_card = (to_card > 0) & (np.abs(hit[..., :2]).max(-1) < CARD[1])
    return np.where(on_card, to_card, np.where(to_table > 0, to_table, 0.0))


def see(eye, target, focal: float, height: int, width: int) -> Seen:
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    pose = looking(eye, target)
    v, u = np.mgrid[:height, :width] + 0.5
    depth = cast(K, pose, u, v)
    return Seen(*(x.astype(np.float32) for x in (depth, K, pose)))


def scene() -> tuple[Seen, Seen]:
    """Two anchors f[2,...] of 24 x 32 pixels, and a wrist of 20 x 28 near the card."""
    anchors = [
        see((0.9, 0.1, 0.7), (0, 0, 0.05), 30.0, 24, 32),
        see((0.1, -0.8, 0.9), (0, 0, 0.05), 34.0, 24, 32),
    ]
    wrist = see((0.15, 0.05, 0.5), (-0.05, 0.02, 0.0), 20.0, 20, 28)
    return Seen(*(np.stack(x) for x in zip(*anchors, strict=True))), wrist
