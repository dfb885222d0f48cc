"""A camera on the hand: where it is follows from the joints and one fixed transform.

The mount is a camera whose world is the link that carries it: size, K, and cam_from_link
where others have cam_from_world (the identity if the link has the camera's own axes: x
right, y down, z forward).
"""

import jax.numpy as jnp
import numpy as np

from w4d_jax.kin.se3 import invert
from w4d_jax.types import Camera, InputError


def carried(robot, q, link: str, mount: Camera) -> Camera:
    """The camera in joint positions q f32[T,J]: T poses, the world is the robot's base."""
    if np.ndim(mount.cam_from_world) != 2:
        raise InputError(
            f"wrist camera: {len(mount.cam_from_world)} poses on the link {link}, need one"
        )
    base_from_link = robot.link_poses(jnp.asarray(q))[:, robot.link_index(link)]
    poses = jnp.matmul(mount.cam_from_world, invert(base_from_link), precision="highest")
    return Camera(mount.width, mount.height, mount.K, np.asarray(poses))


def mounted(base_from_link: np.ndarray, cam_from_base: np.ndarray):
    """The mount behind recorded poses f[T,4,4] of a link and of its camera.

    -> cam_from_link f64[4,4], the mean of what the frames say; and how far the frames are
    from it at most, in metres and radians.
    """
    said = np.asarray(cam_from_base, np.float64) @ np.asarray(base_from_link, np.float64)
    u, _, v = np.linalg.svd(said[:, :3, :3].mean(0))
    mean = np.eye(4)
    mean[:3, :3] = u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v
    mean[:3, 3] = said[:, :3, 3].mean(0)
    far = np.linalg.norm(said[:, :3, 3] - mean[:3, 3], axis=-1).max()
    # |R - S| = 2 sqrt(2) sin(angle / 2), which is exact also where the angle is tiny.
    apart = np.linalg.norm(said[:, :3, :3] - mean[:3, :3], axis=(-2, -1)).max()
    return mean, far, 2 * np.arcsin(min(apart / 8**0.5, 1.0))
