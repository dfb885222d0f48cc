"""Cameras as VGGT writes them: nine numbers, relative to a first view, in a free unit.

A pose encoding f[...,9] is the translation of cam_from_world (3), its rotation as a
quaternion x y z w of any length but 0 (4), and the vertical, then the horizontal field of
view in radians (2). The principal point is not in it: it comes back in the image's centre.
"""

import jax.numpy as jnp
import numpy as np

from w4d_jax.kin import se3

WXYZ, XYZW = np.array([3, 0, 1, 2]), np.array([1, 2, 3, 0])  # from the other order


def encode_pose(cam_from_world, K, height: int, width: int):
    """Pose f[...,4,4] and intrinsics f[...,3,3] -> encoding f[...,9], w >= 0."""
    quat = se3.quat_from_rotation(cam_from_world[..., :3, :3])[..., XYZW]
    focal = jnp.stack([K[..., 1, 1], K[..., 0, 0]], -1)
    fields = 2 * jnp.arctan(jnp.array([height, width]) / (2 * focal))
    return jnp.concatenate([cam_from_world[..., :3, 3], quat, fields], -1)


def decode_pose(encoding, height: int, width: int):
    """Encoding f[...,9] -> (cam_from_world f[...,4,4], K f[...,3,3]).

    A field of view of 0 gives an infinite focal length.
    """
    R = se3.rotation_from_quat(encoding[..., 3:7][..., WXYZ])
    fy, fx = (
        0.5 * side / jnp.tan(0.5 * encoding[..., i])
        for side, i in ((height, 7), (width, 8))
    )
    zero, one = jnp.zeros_like(fx), jnp.ones_like(fx)
    rows = (fx, zero, one * width / 2), (zero, fy, one * height / 2), (zero, zero, one)
    K = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
    return se3.rigid(R, encoding[..., :3]), K


def mean_pose(cam_from_world) -> np.ndarray:
    """The camera in the middle of f[N,4,4]: the mean of their places, the rotation nearest
    to the mean of theirs. f64[4,4]."""
    poses = np.asarray(cam_from_world, np.float64)
    u, _, v = np.linalg.svd(poses[:, :3, :3].mean(0))
    pose = np.eye(4)
    pose[:3, :3] = u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v
    places = -np.einsum("nji,nj->ni", poses[:, :3, :3], poses[:, :3, 3])
    pose[:3, 3] = -pose[:3, :3] @ places.mean(0)
    return pose


def from_integer_centres(K):
    """Intrinsics f[...,3,3] for which pixel j has its centre at u = j, as VGGT and OpenCV
    count -> the same for our pixels, whose centres lie at j + 0.5."""
    return K.at[..., :2, 2].add(0.5)


def from_first_view(cam_from_world):
    """Poses f[...,V,4,4] of V views -> the same with the first camera's frame as world."""
    world_from_first = se3.invert(cam_from_world[..., :1, :, :])
    return jnp.matmul(cam_from_world, world_from_first, precision="highest")


def scene_scale(points, valid):
    """Mean distance from the origin of the valid points: VGGT's unit of length, f[...].

    points f[...,V,H,W,3] in the first camera's frame, valid bool[...,V,H,W]. Dividing
    points, depths and translations by it makes scenes of all sizes alike.
    """
    axes = (-3, -2, -1)
    distance = jnp.where(valid, jnp.linalg.norm(points, axis=-1), 0.0)
    mean = distance.sum(axes) / (valid.sum(axes) + 1e-3)
    return jnp.clip(mean, 1e-6, 1e6)
