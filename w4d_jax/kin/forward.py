"""Forward kinematics on plain arrays: the pose of every link from the joints."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


class Tree(NamedTuple):
    """A kinematic tree of F frames in topological order; constants only, no model library.

    Frame i moves in its parent's frame as  constant + u * first + v * second  (all 4x4)
    with (u, v) = (cos a, sin a) for a hinge and (a, 0) for a slide, where
    a = gain[i] @ q + offset[i]; a fixed frame has no u, v.
    """

    parent: tuple[int, ...]  # -1 = the base
    constant: np.ndarray  # f64[F,4,4]
    first: np.ndarray  # f64[F,4,4]
    second: np.ndarray  # f64[F,4,4]
    hinge: np.ndarray  # bool[F]
    gain: np.ndarray  # f64[F,J]; mimic joints follow their master here
    offset: np.ndarray  # f64[F]
    link: tuple[int, ...]  # the frame of each of the L links


def link_poses(tree: Tree, q):
    """q f[...,J] (radians, metres) -> base_from_link f32[...,L,4,4]."""
    q = jnp.asarray(q, jnp.float32)
    f32 = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    a = jnp.einsum("...j,fj->...f", q, f32(tree.gain), precision="highest") + f32(
        tree.offset
    )
    u = jnp.where(tree.hinge, jnp.cos(a), a)[..., None, None]
    v = jnp.where(tree.hinge, jnp.sin(a), 0.0)[..., None, None]
    local = f32(tree.constant) + u * f32(tree.first) + v * f32(tree.second)
    poses = []
    for i, parent in enumerate(tree.parent):
        here = local[..., i, :, :]
        poses.append(
            here if parent < 0 else jnp.matmul(poses[parent], here, precision="highest")
        )
    return jnp.stack([poses[i] for i in tree.link], -3)
