"""What may come of the hand's motion, drawn: the guesses that Kinema4D's network gates.

The thing that the hand met is what stands out, round the grip, from a picture in which that
place is filled in from around it. Two guesses, each a change of what stands still:

1. the hand takes the thing along (kin/carry.py): its colours, and for geometry the plane
   through the grip;
2. at the thing's own place. Colours: the place is empty. Geometry: the thing stands there
   still, in the plane through the grip when they met.

Nothing of this looks at the future: the first image, the cameras and the actions make it.
"""

import jax
import jax.numpy as jnp

from w4d_jax.kin.carry import around, carried, follow
from w4d_jax.kin.control import Normaliser, scene_pointmap
from w4d_jax.nets.condition import inpaint

COUNT = 2
CONTRAST = 0.3  # difference of colours in [-1, 1] from which a pixel stands out in full


def outcomes(still, ground, batch, norms: Normaliser):
    """still f[B,T,H,W,3], the first image with the robot taken away, in [-1, 1]; ground
    f[B,T,H,W,3], its pointmap, normalised; batch: K, cam_from_world and actions -> changes
    (rgb, pointmap) f[COUNT,B,T,H,W,3] each, 0 in frame 0."""
    told = batch["K"], batch["cam_from_world"], batch["actions"], norms
    rgb, points = jax.vmap(_of_clip, out_axes=1)(still, ground, *told)
    return rgb.at[:, :, 0].set(0), points.at[:, :, 0].set(0)


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
    planes = [scene_pointmap(depth, K, norm) - ground for depth in (here, there)]
    rgb = along * (moved - still), thing * (empty - still)
    return jnp.stack(rgb), jnp.stack([along * planes[0], thing * planes[1]])
