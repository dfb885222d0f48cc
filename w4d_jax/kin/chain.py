"""The chain from a robot's base to one link: its pose and its Jacobian."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.types import InputError


class Chain(NamedTuple):
    """The m moving frames on the way to a link, and the n joints that move them.

    As in forward.Tree, frame i stands in the one before at  constant + u first + v second
    (fixed frames are folded in), its coordinate a = gain[i] @ q + offset[i]. m > n where
    joints mimic each other.
    """

    constant: Any  # f32[m,4,4]
    first: Any  # f32[m,4,4]
    second: Any  # f32[m,4,4]
    hinge: Any  # bool[m]
    gain: Any  # f32[m,n]
    offset: Any  # f32[m]
    tip: Any  # f32[4,4] the link in the last moving frame
    angular: Any  # f32[m,3] the axis of a hinge in the frame before; 0 for a slide
    linear: Any  # f32[m,3] velocity of the point at the origin of the frame before
    lower: Any  # f32[n] limits, may be infinite
    upper: Any  # f32[n]


@functools.lru_cache(maxsize=64)
def chain_of(robot, link: str) -> tuple[np.ndarray, Chain]:
    """The joints that move a link (columns of q, i64[n]) and the chain to it."""
    tree = robot.tree
    path = [tree.link[robot.link_index(link)]]
    while tree.parent[path[0]] >= 0:
        path.insert(0, tree.parent[path[0]])
    moving = [i for i in path if tree.first[i].any()]
    joints = np.flatnonzero(tree.gain[moving].any(0))
    if not joints.size:
        raise InputError(
            f"robot {robot.name}: no joint moves link {link}, need one further out"
        )
    frames, fixed = [], np.eye(4)
    for i in path:
        if i in moving:
            frames.append([fixed @ x[i] for x in (tree.constant, tree.first, tree.second)])
            fixed = np.eye(4)
        else:
            fixed = fixed @ tree.constant[i]
    constant, first, second = np.stack(frames, 1)
    # At a = 0 a hinge's frame changes by `second`, a slide's by `first`: change = S frame.
    hinge = tree.hinge[moving]
    by_hinge = hinge[:, None, None]
    at_zero = constant + np.where(by_hinge, first, 0.0)
    S = np.where(by_hinge, second, first) @ np.linalg.inv(at_zero)
    chain = Chain(
        constant=constant,
        first=first,
        second=second,
        hinge=hinge,
        gain=tree.gain[moving][:, joints],
        offset=tree.offset[moving],
        tip=fixed,
        angular=np.stack([S[:, 2, 1], S[:, 0, 2], S[:, 1, 0]], -1),
        linear=S[:, :3, 3],
        lower=robot.limits[joints, 0],
        upper=robot.limits[joints, 1],
    )
    return joints, jax.tree.map(
        lambda x: x if x.dtype == bool else x.astype(np.float32), chain
    )


def pose_and_jacobian(chain: Chain, q):
    """q f[n] -> base_from_link f32[4,4], J f32[6,n].

    J: velocity of the link's origin, then its angular velocity, in the base frame, for each
    joint at unit speed.
    """
    a = jnp.einsum("mn,n->m", chain.gain, q, precision="highest") + chain.offset
    u = jnp.where(chain.hinge, jnp.cos(a), a)[:, None, None]
    v = jnp.where(chain.hinge, jnp.sin(a), 0.0)[:, None, None]
    before, pose = [], jnp.eye(4)
    for local in chain.constant + u * chain.first + v * chain.second:
        before.append(pose)
        pose = jnp.matmul(pose, local, precision="highest")
    pose = jnp.matmul(pose, chain.tip, precision="highest")
    before = jnp.stack(before)
    angular, linear = (
        jnp.einsum("mij,mj->mi", before[:, :3, :3], x, precision="highest")
        for x in (chain.angular, chain.linear)
    )
    linear = linear + jnp.cross(angular, pose[:3, 3] - before[:, :3, 3])
    twist = jnp.concatenate([linear, angular], -1)
    return pose, jnp.einsum("mi,mn->in", twist, chain.gain, precision="highest")
