"""The first image as it would look if the hand took along what it met.

Where a hand goes is known; whether it holds anything is not. Kinematics can still draw what
would be seen if it did. The hand met whatever it may hold where it had come down; from then
on that thing moves as the hand does, as a rigid body. What the image shows round the grip
is taken to lie in the plane through the grip that faces the camera: a homography a frame.
A network that is shown this beside the untouched image has only to tell, place by place,
which of the two comes true. What it tells it by is what lies in the hand, and that is seen
best from the hand: there a grasp is a thing in the middle, a near-miss one at the edge,
wherever on the table and whichever way. World: z is up.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from w4d_jax.kin import se3
from w4d_jax.kin.camera import pixel_rays, project

DOWN = 0.005  # metres above the lowest that still count as low
SHUT = 0.01  # metres of opening that tell shut from not yet shut, or open again
FIST = 0.02  # metres of opening below which a hand comes down to push
REACH = 0.10  # metres round a fist that it may take along
BESIDE = 0.02  # metres beyond the fingers that may stick out of a grasp
NEARER = 0.25  # of its width: what is seen of a thing lies before its middle
SUBPIXELS = 1024.0  # of a pixel, between which images are looked up
VIEW = 10  # pixels a side of what the hand sees, 2 cm each


class Grip(NamedTuple):
    """In each frame: whether the hand has met something that it may hold, bool[T]; the
    poses world_from_grip f[T,4,4], their origin between the finger tips, where it did and
    where it last held it; how many metres round the grip that may lie, f[T]."""

    holds: Any
    met: Any
    last: Any
    reach: Any


def follow(actions) -> Grip:
    """actions f[T,8]: xyz + quaternion wxyz of the grip, and the opening in metres."""
    grip = se3.pose_from_xyz_quat(actions[:, :7])
    met, last = held(actions[:, 2], actions[:, 7])
    came = open_before(actions[:, 7], met)
    reach = jnp.where(came < FIST, REACH, jnp.minimum(REACH, came / 2 + BESIDE))
    return Grip(met < jnp.arange(len(met)), grip[met], grip[last], reach)


def open_before(opening, met):
    """How far open the hand came to what it met, f[T] metres: it may have shut since the
    frame before."""
    return jnp.maximum(opening[met], opening[jnp.maximum(met - 1, 0)])


def held(height, opening):
    """When the hand met what it may hold in each frame, and when it last held it.

    height f[T] of the grip and opening f[T] of the fingers, metres -> frames i32[T] (met,
    last), met <= last <= t. Met: where the hand first was as low as it has been by t. Last:
    fingers that have shut since hold on until they open again; a fist pushes while it stays
    low. A hand on its way down has met nothing: met = last = t.
    """
    now = jnp.arange(len(height))
    lowest = jax.lax.cummin(height)
    met = jnp.argmax(height <= lowest[:, None] + DOWN, 1)
    since = (now >= met[:, None]) & (now <= now[:, None])
    tightest = jnp.min(jnp.where(since, opening, jnp.inf), 1, keepdims=True)
    before = open_before(opening, met)[:, None]
    shut = opening < before - SHUT
    fist = (before < FIST) & (height <= lowest[:, None] + DOWN)
    holds = since & (opening <= tightest + SHUT) & (shut | fist)
    return met, jnp.maximum(met, jnp.max(jnp.where(holds, now, 0), 1))


def centred(grip: Grip, share, K, cam_from_world) -> Grip:
    """The same motion, told of what the hand met in place of the grip.

    share f[T,H,W]: how far each pixel shows it. Its middle is as high as the grip was;
    what is seen of it lies somewhat before. Where nothing is seen, the grip stays.
    """
    rays = pixel_rays(K, *share.shape[1:])
    pixels = share.sum((1, 2))
    weight = share / jnp.maximum(pixels, 1e-6)[:, None, None]
    ray = jnp.einsum("thw,hwi->ti", weight, rays, precision="highest")
    up, origin = cam_from_world[:, :3, 2], cam_from_world[:, :3, 3]
    rise = jnp.sum(up * ray, -1)  # of the ray, a metre ahead
    height = grip.met[:, 2, 3] + jnp.sum(up * origin, -1)  # of the grip over the camera
    ahead = height / jnp.where(jnp.abs(rise) > 1e-3, rise, jnp.inf)
    ahead = ahead * (1 - NEARER * jnp.sqrt(pixels / (K[0, 0] * K[1, 1])))
    middle = se3.transform(se3.invert(cam_from_world), (ahead[:, None] * ray)[:, None])
    grip_from_middle = se3.transform(se3.invert(grip.met), middle)[:, 0]
    seen = (pixels >= 1) & (jnp.linalg.norm(grip_from_middle, axis=-1) < REACH)
    shift = jnp.where(seen[:, None], grip_from_middle, 0.0)
    shift = se3.rigid(jnp.broadcast_to(jnp.eye(3), (len(shift), 3, 3)), shift)
    met, last = (
        jnp.matmul(pose, shift, precision="highest") for pose in (grip.met, grip.last)
    )
    return grip._replace(met=met, last=last)


def carried(images, K, cam_from_world, grip: Grip):
    """images f[T,H,W,C] of frame 0, one to be looked at in each frame; K f[3,3];
    cam_from_world f[T,4,4] -> f[T,H,W,C]: in each frame, what its image shows at the place
    that the hand has brought here, 0 if that is out of sight."""
    H, W, _ = images.shape[1:]
    rays = pixel_rays(K, H, W).reshape(H * W, 3)
    met_from_last = jnp.matmul(grip.met, se3.invert(grip.last), precision="highest")

    def frame(image, cam, last, met_from_last):
        x = rays * se3.transform(cam, last[None, :3, 3])[0, 2]
        x = se3.transform(met_from_last, se3.transform(se3.invert(cam), x))
        x = se3.transform(cam_from_world[0], x)
        return look(image, x, K, "constant").reshape(image.shape)

    return jax.vmap(frame)(images, cam_from_world, grip.last, met_from_last)


def around(K, cam_from_world, pose, reach, height: int, width: int):
    """The plane through a grip that faces the camera: its depth f[T,H,W] in metres, and
    which pixels of it lie within reach, f[] or f[T,1,1], of the grip, bool[T,H,W]. pose
    f[T,4,4]."""
    at = jnp.einsum("tij,tj->ti", cam_from_world, pose[..., 3], precision="highest")
    at = at[:, None, None, :3]
    depth = jnp.broadcast_to(at[..., 2], (len(at), height, width))
    gap = depth[..., None] * pixel_rays(K, height, width) - at
    return depth, (depth > 0) & (jnp.linalg.norm(gap, axis=-1) < reach)


def from_hand(image, K, cam_from_world, pose):
    """What an image f[H,W,C] shows of the plane through grips f[P,4,4] that their fingers
    close in, within REACH of each: f[P,S,S,C], S = VIEW, columns along the grip's x, rows
    along its y. 0 where that lies behind the camera."""
    at = REACH * (2 * (jnp.arange(VIEW) + 0.5) / VIEW - 1)
    plane = jnp.stack([*jnp.meshgrid(at, at), jnp.zeros((VIEW, VIEW))], -1)
    x = se3.transform(pose, jnp.broadcast_to(plane.reshape(-1, 3), (len(pose), VIEW**2, 3)))
    x = se3.transform(cam_from_world, x.reshape(-1, 3))
    return look(image, x, K, "nearest").reshape(-1, VIEW, VIEW, image.shape[-1])


def look(image, x, K, outside: str):
    """The image f[H,W,C] where its camera sees points x f[N,3] of its own frame: f[N,C]. 0
    behind it; beside the picture 0 ("constant") or its edge ("nearest")."""
    ahead = x[:, 2] > 0
    u, v = project(jnp.where(ahead[:, None], x, 1.0), K).T - 0.5
    # XLA may compute a coordinate twice, with other rounding, for its floor and for its
    # fraction: 7.9999999 and 8.0000001 would together be pixel 7. On a grid they agree.
    u, v = (jnp.round(SUBPIXELS * c) / SUBPIXELS for c in (u, v))
    found = jax.vmap(lambda c: map_coordinates(c, [v, u], 1, outside), -1, -1)(image)
    return jnp.where(ahead[:, None], found, 0.0)
