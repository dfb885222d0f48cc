"""Rigid transforms. A pose is `a_from_b` f[...,4,4]; quaternions are w first.

Everything broadcasts over leading axes and differentiates, also at the identity.
"""

import jax.numpy as jnp


def rigid(R, t):
    """Rotation f[...,3,3] and translation f[...,3] -> pose f[...,4,4]."""
    top = jnp.concatenate([R, t[..., None]], -1)
    bottom = jnp.zeros((*top.shape[:-2], 1, 4), top.dtype).at[..., 3].set(1)
    return jnp.concatenate([top, bottom], -2)


def invert(a_from_b):
    """b_from_a f[...,4,4]: the transpose, not a solve, so exact for a rotation."""
    R = jnp.swapaxes(a_from_b[..., :3, :3], -1, -2)
    t = jnp.einsum("...ij,...j->...i", R, a_from_b[..., :3, 3], precision="highest")
    return rigid(R, -t)


def transform(a_from_b, x):
    """Points x f[...,N,3] in b -> the same points in a."""
    R, t = a_from_b[..., :3, :3], a_from_b[..., :3, 3]
    return jnp.einsum("...ij,...nj->...ni", R, x, precision="highest") + t[..., None, :]


def rotation_from_quat(q):
    """Quaternion f[...,4] (w x y z, any length but 0) -> rotation f[...,3,3]."""
    w, x, y, z = jnp.moveaxis(q, -1, 0)
    s = 2.0 / jnp.sum(q * q, -1)
    rows = [
        [1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)],
        [s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)],
        [s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def quat_from_rotation(R):
    """Rotation f[...,3,3] -> unit quaternion f[...,4] with w >= 0.

    Of the four rows of 4 q q' (each a multiple of q) the one with the largest diagonal,
    4 q_i^2 >= 1, is divided by 2 |q_i|: never by a small number.
    """
    xx, yy, zz = R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]
    xy, yx, xz = R[..., 0, 1], R[..., 1, 0], R[..., 0, 2]
    zx, yz, zy = R[..., 2, 0], R[..., 1, 2], R[..., 2, 1]
    outer = jnp.stack(
        [
            jnp.stack([1 + xx + yy + zz, zy - yz, xz - zx, yx - xy], -1),
            jnp.stack([zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx], -1),
            jnp.stack([xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy], -1),
            jnp.stack([yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz], -1),
        ],
        -2,
    )
    diagonal = jnp.diagonal(outer, axis1=-2, axis2=-1)
    best = jnp.argmax(diagonal, -1, keepdims=True)
    row = jnp.take_along_axis(outer, best[..., None], -2)[..., 0, :]
    q = row / (2 * jnp.sqrt(jnp.take_along_axis(diagonal, best, -1)))
    return jnp.where(q[..., :1] < 0, -q, q)


def pose_from_xyz_quat(xyz_quat):
    """f[...,7] (position, quaternion wxyz) -> pose f[...,4,4]."""
    return rigid(rotation_from_quat(xyz_quat[..., 3:]), xyz_quat[..., :3])


def xyz_quat_from_pose(a_from_b):
    """Pose f[...,4,4] -> f[...,7] (position, quaternion wxyz)."""
    return jnp.concatenate(
        [a_from_b[..., :3, 3], quat_from_rotation(a_from_b[..., :3, :3])], -1
    )


def rotation_vector(R):
    """Axis times angle of R f[...,3,3] -> f[...,3], angle in [0, pi]; log of SO(3)."""
    q = quat_from_rotation(R)
    v = q[..., 1:]
    sine = jnp.sqrt(jnp.maximum(jnp.sum(v * v, -1, keepdims=True), 1e-24))
    angle = 2.0 * jnp.arctan2(sine, q[..., :1])
    return v * jnp.where(sine < 1e-6, 2.0, angle / sine)


def rotation_from_vector(v):
    """Axis times angle f[...,3] -> rotation f[...,3,3]; exp of so(3), smooth at 0."""
    square = jnp.sum(v * v, -1, keepdims=True)
    half = 0.5 * jnp.sqrt(jnp.maximum(square, 1e-24))
    sinc = jnp.where(square < 1e-12, 0.5, jnp.sin(half) / (2.0 * half))
    return rotation_from_quat(jnp.concatenate([jnp.cos(half), v * sinc], -1))


def rotation_angle(R):
    """The angle of R f[...,3,3] -> f[...], radians in [0, pi]."""
    return jnp.linalg.norm(rotation_vector(R), axis=-1)
