"""What may come of the hand's motion, drawn: what Kinema4D's network starts from.

The thing that the hand met is what stands out, round the grip, from a picture in which that
place is filled in from around it. Two videos, robot left out:

- taken: the thing goes with the hand (kin/carry.py) and its place is empty. Its points lie
  in the plane through the grip.
- left: the thing stands where it stood. Its points lie in the plane through the grip when
  they met.

Nothing of this looks at the future: the first image, the cameras and the actions make it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from w4d_jax.kin.carry import around, carried, follow
from w4d_jax.kin.control import Normaliser, scene_pointmap
from w4d_jax.nets.condition import inpaint

CONTRAST = 0.3  # difference of colours in [-1, 1] from which a pixel stands out in full


class Drawing(NamedTuple):
    """A video of B clips: rgb f[B,T,H,W,3] in [-1, 1], pointmap f[B,T,H,W,3] normalised."""

    rgb: Any
    pointmap: Any


def outcomes(still, ground, batch, norms: Normaliser) -> tuple[Drawing, Drawing]:
    """(taken, left). still f[B,T,H,W,3], the first image with the robot taken away; ground
    f[B,T,H,W,3], its stand-in pointmap; batch: K, cam_from_world and actions."""
    told = batch["K"], batch["cam_from_world"], batch["actions"], norms
    return jax.vmap(_of_clip)(still, ground, *told)


def _of_clip(still, ground, K, cam_from_world, actions, norm: Normaliser):
    size, grip = still.shape[1:3], follow(actions)
    (here, _), (there, place) = (
        around(K, cam_from_world, pose, *size) for pose in (grip.last, grip.met)
    )
    place = (place & grip.holds[:, None, None])[..., None]
    empty = inpaint(still, 1.0 - place)
    contrast = jnp.abs(still - empty).max(-1, keepdims=True) / CONTRAST
    thing = place * jnp.minimum(contrast, 1.0)
    moved = carried(jnp.concatenate([still, thing], -1), K, cam_from_world, grip)
    moved, along = moved[..., :3], moved[..., 3:]
    here, there = (scene_pointmap(depth, K, norm) for depth in (here, there))
    behind = mix(thing, empty, still)
    taken = Drawing(mix(along, moved, behind), mix(along, here, ground))
    return taken, Drawing(still, mix(thing, there, ground))


def mix(share, x, y):
    """share x + (1 - share) y."""
    return share * x + (1 - share) * y
