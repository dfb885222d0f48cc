"""Forward kinematics on plain arrays: the pose of every link from the joints.

A joint's motion is affine in (cos a, sin a) or in a, so a frame's pose is its parent's
times three constant matrices, then a sum: one matrix product with constants for each
moving frame. XLA runs that fast on any device. (Products of poses with each other, the
textbook form, become batched 4x4 products, ten times slower on a CPU; written out by
element they become one long chain, which XLA's CPU compiler recomputes without end.)
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = (1024, 4096)  # poses whose intermediate frames stay in a core's cache
EYE = np.eye(4)


class Tree(NamedTuple):
    """A kinematic tree of F frames in topological order; constants only, no model library.

    Frame i stands in its parent's frame at  constant + u * first + v * second  (all 4x4)
    with (u, v) = (cos a, sin a) for a hinge and (a, 0) for a slide, where
    a = gain[i] @ q + offset[i]; a frame with first = 0 is fixed.
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
    """q f[...,J] (radians, metres) -> base_from_link f32[...,L,4,4]; jit, vmap, grad."""
    rows = jnp.asarray(q, jnp.float32).reshape(-1, q.shape[-1])
    whole = functools.partial(_poses, tree)
    poses = jax.lax.platform_dependent(
        rows, cpu=functools.partial(_in_blocks, whole), default=whole
    )
    return poses.reshape(*q.shape[:-1], len(tree.link), 4, 4)


def _in_blocks(function, rows):
    """function(rows), block after block where the count divides into blocks."""
    count, (least, most) = len(rows), BLOCK
    fitting = (n for n in range(most, least - 1, -1) if count > n and count % n == 0)
    if block := next(fitting, None):
        blocks = jax.lax.map(function, rows.reshape(-1, block, rows.shape[-1]))
        return blocks.reshape(count, *blocks.shape[2:])
    return function(rows)


def _poses(tree: Tree, q):
    """q f32[N,J] -> f32[N,L,4,4]."""
    moving, places = _folded(tree)
    a = _product(q, tree.gain[moving].T) + np.float32(tree.offset[moving])
    hinge = tree.hinge[moving]
    u = jnp.where(hinge, jnp.cos(a), a)
    v = jnp.where(hinge, jnp.sin(a), 0.0)

    eye = jnp.broadcast_to(np.float32(EYE), (len(q), 4, 4))
    frames = {-1: eye[:, :3]}  # base_from_frame f32[N,3,4]
    for k, i in enumerate(moving):
        parent, place = places[tree.parent[i]]
        motion = place @ np.concatenate(
            [tree.constant[i], tree.first[i], tree.second[i]], 1
        )
        still, first, second = jnp.split(_product(frames[parent], motion), 3, -1)
        frames[i] = still + u[:, k, None, None] * first + v[:, k, None, None] * second

    links = []
    for frame in tree.link:
        parent, place = places[frame]
        rigid = frames[parent] if (place == EYE).all() else _product(frames[parent], place)
        links += [rigid.reshape(-1, 12), eye[:, 3]]
    return jnp.concatenate(links, 1).reshape(-1, len(tree.link), 4, 4)


def _folded(tree: Tree):
    """The moving frames, and for each frame the last moving one and its place there."""
    moving, places = [], {-1: (-1, EYE)}
    for i, parent in enumerate(tree.parent):
        if tree.first[i].any():
            moving.append(i)
            places[i] = (i, EYE)
        else:
            frame, place = places[parent]
            places[i] = (frame, place @ tree.constant[i])
    return moving, places


def _product(x, constant: np.ndarray):
    """x f32[...,K] @ constant f[K,M] as one matrix product, whatever the leading axes."""
    rows = x.reshape(-1, x.shape[-1])
    out = jnp.dot(rows, np.float32(constant), precision="highest")
    return out.reshape(*x.shape[:-1], constant.shape[-1])
