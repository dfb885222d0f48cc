"""What may come of the hand's motion, drawn: what Kinema4D's network starts from.

The thing that the hand met is what stands out, round the grip, from a picture in which that
place is filled in from around it. Two videos, robot left out:

- taken: the thing goes with the hand (kin/carry.py) and its place is empty.
- left: the thing stands where it stood.

Its points lie in a plane that faces the camera, a little before its middle. Which of the
two comes true is told by where it stood: there both are drawn to the pixel, while where it
goes a drawing may well be beside it, and then agrees with nothing.

Nothing of this looks at the future: the first image, the cameras and the actions make it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from w4d_jax.kin.carry import REACH, VIEW, around, carried, centred, follow, from_hand
from w4d_jax.kin.control import Normaliser, scene_pointmap
from w4d_jax.nets.condition import inpaint

CONTRAST = 0.3  # difference of colours in [-1, 1] from which a pixel stands out in full


class Drawing(NamedTuple):
    """A video of B clips: rgb f[B,T,H,W,3] in [-1, 1], pointmap f[B,T,H,W,3] normalised."""

    rgb: Any
    pointmap: Any


class Outcomes(NamedTuple):
    taken: Drawing
    left: Drawing
    stood: Any  # bool[B,T,H,W] where the thing was that the hand holds, or would


def outcomes(still, ground, batch, norms: Normaliser) -> Outcomes:
    """still f[B,T,H,W,3], the first image with the robot taken away; ground f[B,T,H,W,3],
    its stand-in pointmap; batch: K, cam_from_world and actions."""
    told = batch["K"], batch["cam_from_world"], batch["actions"], norms
    return jax.vmap(_of_clip)(still, ground, *told)


def _of_clip(still, ground, K, cam_from_world, actions, norm: Normaliser):
    size, grip = still.shape[1:3], follow(actions)

    def plane(pose, reach=REACH):
        depth, near = around(K, cam_from_world, pose, reach, *size)
        near = (near & grip.holds[:, None, None])[..., None]
        return scene_pointmap(depth, K, norm), near

    _, beside = plane(grip.met)
    _, within = plane(grip.met, grip.reach[:, None, None])
    empty = inpaint(still, 1.0 - beside)
    contrast = jnp.abs(still - empty).max(-1, keepdims=True) / CONTRAST
    stands = beside * jnp.minimum(contrast, 1.0)
    there, _ = plane(centred(grip, stands[..., 0], K, cam_from_world).met)
    left = Drawing(still, mix(stands, there, ground))

    share = within * stands
    thing = centred(grip, share[..., 0], K, cam_from_world)
    here, _ = plane(thing.last)
    moved = carried(jnp.concatenate([still, share], -1), K, cam_from_world, thing)
    moved, along = moved[..., :3], moved[..., 3:]
    behind = Drawing(mix(share, empty, still), mix(share, ground, left.pointmap))
    taken = Drawing(mix(along, moved, behind.rgb), mix(along, here, behind.pointmap))
    return Outcomes(taken, left, share[..., 0] > 0)


def hand_sees(still, batch, ground: float):
    """What tells which it will be: f32[B,N], N = `hand_width`.

    What stands out of the image still f[B,H,W,3], as the hand sees it where it met what it
    may hold, and where it last held it: a thing's colour says nothing of how it lies in the
    hand. Then how high the grip is over the ground, which is given in metres over the
    robot's base, and how far open in every frame.
    """

    def of_clip(image, K, cam_from_world, actions):
        grip = follow(actions)
        poses = jnp.stack([grip.met[-1], grip.last[-1]])
        views = from_hand(image, K, cam_from_world[0], poses)
        table = jnp.median(views, (1, 2), keepdims=True)
        contrast = jnp.minimum(jnp.abs(views - table).max(-1) / CONTRAST, 1.0)
        course = jnp.concatenate([actions[:, 2] - ground, actions[:, 7]]) / REACH
        return jnp.concatenate([2 * contrast.ravel() - 1, course])

    told = batch["K"], batch["cam_from_world"], batch["actions"]
    return jax.vmap(of_clip)(still, *told)


def hand_width(frames: int) -> int:
    return 2 * VIEW**2 + 2 * frames


class Truth(NamedTuple):
    """What came of it."""

    left: Any  # f32[B] 1 if the thing was left, else 0
    told: Any  # f32[B] 1 if there is anything to tell it by, else 0


def truth(change, missing, stood) -> Truth:
    """Told by the cells stood bool[B,t,h,w]: is what a guess is missing there f[B,t,h,w,C]
    nearer to its change f[B,t,h,w,C] than to nothing?"""
    axes, where = (1, 2, 3, 4), stood[..., None]
    energy = jnp.sum(where * jnp.square(change), axes)
    along = jnp.sum(where * change * missing, axes)
    left, told = along > energy / 2, energy > 0
    return Truth(left.astype(jnp.float32), told.astype(jnp.float32))


def mix(share, x, y):
    """share x + (1 - share) y."""
    return share * x + (1 - share) * y
