"""What may come of the hand's motion, drawn: the guesses that Kinema4D's network gates.

Two of them, each a change of what stands still:

1. the hand takes along what it met (kin/carry.py): its colours, and for geometry the plane
   through the grip;
2. what the hand met. Colours: its place is empty, filled in from around it. Geometry: it
   stands there still, in the plane through that place.

Nothing of this looks at the future: the first image, the cameras and the actions make it.
"""

import jax
import jax.numpy as jnp

from w4d_jax.kin.carry import around, carried, follow
from w4d_jax.kin.control import Normaliser, scene_pointmap
from w4d_jax.nets.condition import inpaint

COUNT = 2


def outcomes(still, ground, batch, norms: Normaliser):
    """still f[B,T,H,W,3], the first image with the robot taken away, in [-1, 1]; ground
    f[B,T,H,W,3], its pointmap, normalised; batch: K, cam_from_world and actions -> changes
    (rgb, pointmap) f[COUNT,B,T,H,W,3] each, 0 in frame 0."""
    told = batch["K"], batch["cam_from_world"], batch["actions"], norms
    rgb, points = jax.vmap(_of_clip, out_axes=1)(still, ground, *told)
    return rgb.at[:, :, 0].set(0), points.at[:, :, 0].set(0)


def _of_clip(still, ground, K, cam_from_world, actions, norm: Normaliser):
    size, grip = still.shape[1:3], follow(actions)
    here, near = around(K, cam_from_world, grip.last, *size)
    there, place = around(K, cam_from_world, grip.met, *size)
    near, place = ((grip.holds[:, None, None] & mask)[..., None] for mask in (near, place))
    moved = carried(still[-1], K, cam_from_world, grip)
    empty = inpaint(still, 1.0 - place)
    rgb = near * (moved - still), place * (empty - still)
    planes = (scene_pointmap(depth, K, norm) - ground for depth in (here, there))
    points = (mask * plane for mask, plane in zip((near, place), planes, strict=True))
    return jnp.stack(rgb), jnp.stack(list(points))
