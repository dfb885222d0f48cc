"""The control signal: where the robot will be, as numbers that a network takes.

A camera-frame point p becomes  n = squash((p - c) / s),  elementwise, in (-1, 1):

    squash(x) = k x                                    |x| <= 1,  k = 0.8
                sign(x) (1 - (1-k)^2 / (1-k + k(|x|-1)))   beyond; C1, odd, increasing

c: the base's origin in the camera frame of the first frame. s: the robot's reach, the ball
round its base that holds it in every pose. Why so:

- Robot and first camera pose alone fix c and s: they are known before anything moves, so
  deployment has what training had. (A normaliser from the clip's own points would not be.)
- Under a fixed camera the whole robot is always within the ball, whatever it does: it uses
  the linear part [-0.8, 0.8], one scale for all axes, equal metres are equal numbers. The
  scene beyond is squeezed, not cut: the table and the far wall keep their order, and metres
  come back from any of it. A squash along each axis leaves the axes independent: an error
  in z does not move x.
- Points stand in each frame's own camera frame, so pixel and point agree by K alone (x / z
  is the column), for moving cameras too. A camera that moves by d can push its robot out to
  squash(1 + d / s). c from the first frame alone: one constant, so that what stands still
  before a fixed camera has constant numbers.
- Pixels without robot hold -1 in all channels, the black of the reference's signal, a value
  that no point takes; the mask says the same exactly. Unknown scene depth (0) is drawn at
  1 km along its ray: no wall at the camera's own position, and finite.

float32 gives points back to 0.1 mm up to 8 s from c on each axis, to 0.6 mm at 20 s (for s
up to 1.3 m, a Panda's).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from w4d_jax.kin.camera import pointmap
from w4d_jax.types import Camera, InputError

KNEE = 0.8  # k: the share of the range that the robot's reach takes
NO_ROBOT = -1.0
FAR = 1000.0  # metres: where unknown depth is drawn
FARTHEST = 5000.0  # reaches: where `denormalise` puts what a network puts at +-1 or beyond


class Normaliser(NamedTuple):
    """What maps metres in the camera frame to (-1, 1) and back; stored with the clip."""

    center: Any  # f32[3] metres: c
    scale: Any  # f32[] metres: s


def normaliser(reach: float, camera: Camera) -> Normaliser:
    """From robot.reach and the camera's first frame; nothing later is looked at.

    Raises InputError where that frame cannot show any of the ball of reach.
    """
    pose = np.asarray(camera.cam_from_world, np.float32)
    center = pose.reshape(-1, 4, 4)[0, :3, 3]
    (fx, skew, cx), (_, fy, cy), _ = np.asarray(camera.K)
    inward = {
        "behind it": (0, 0, 1),
        "left of it": (fx, skew, cx),
        "right of it": (-fx, -skew, camera.width - cx),
        "above it": (0, fy, cy),
        "below it": (0, -fy, camera.height - cy),
    }
    for where, normal in inward.items():
        distance = -np.dot(normal, center) / np.linalg.norm(normal)
        if distance >= reach:
            x, y, z = center
            raise InputError(
                f"camera: sees nothing of the robot's reach of {reach:.2f} m: the base, at "
                f"x {x:.2f} y {y:.2f} z {z:.2f} m in the camera frame, is {where} by "
                f"{distance:.2f} m; check cam_from_world (OpenCV axes, z forward)"
            )
    return Normaliser(center, np.float32(reach))


def normalise(points, norm: Normaliser):
    """Camera-frame points f[...,3] metres -> f[...,3] in (-1, 1)."""
    x = (points - norm.center) / norm.scale
    inner = jnp.clip(x, -1.0, 1.0)
    outer = x - inner
    return KNEE * inner + (1 - KNEE) * KNEE * outer / (1 - KNEE + KNEE * jnp.abs(outer))


def denormalise(n, norm: Normaliser):
    """The inverse of `normalise`, finite for any n: f[...,3] -> metres f[...,3]."""
    inner = jnp.clip(n, -KNEE, KNEE)
    rest = 1 / (1 + KNEE / (1 - KNEE) * FARTHEST)
    outer = jnp.clip((n - inner) / (1 - KNEE), rest - 1, 1 - rest)
    x = inner / KNEE + (1 - KNEE) / KNEE * outer / (1 - jnp.abs(outer))
    return x * norm.scale + norm.center


def control_signal(robot_depth, K, norm: Normaliser):
    """Robot depth f[T,H,W] metres (0 = no robot) -> pointmap f[T,H,W,3], mask f[T,H,W]."""
    mask = robot_depth > 0
    n = normalise(pointmap(robot_depth, K), norm)
    return jnp.where(mask[..., None], n, NO_ROBOT), mask.astype(n.dtype)


def scene_pointmap(depth, K, norm: Normaliser):
    """Scene depth f[T,H,W] metres (0 = unknown) -> pointmap f[T,H,W,3] in (-1, 1)."""
    return normalise(pointmap(jnp.where(depth > 0, depth, FAR), K), norm)
