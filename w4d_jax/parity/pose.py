"""Pose encodings, quaternions, unprojection, projection, relative poses."""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from w4d_jax.kin import camera, pose, se3
from w4d_jax.parity.check import Check, compare, compare_scaled
from w4d_jax.parity.golden import Arrays, jit, load


def checks(folder: Path) -> Iterator[Check]:
    z, config, _ = load(folder, "pose")
    size = config["H"], config["W"]
    yield compare("image_size", size, z["image_size"], 0)
    yield from _encodings(z, *size)
    yield from _quaternions(z)
    yield from _pictures(z)
    yield from _frames(z)


def _encodings(z: Arrays, height: int, width: int) -> Iterator[Check]:
    encode = jit(lambda pose_, K: pose.encode_pose(pose_, K, height, width))
    decode = jit(lambda encoding: pose.decode_pose(encoding, height, width))

    ours = encode(_square(z["encode/extrinsics"]), z["encode/intrinsics"])
    yield compare("encode/pose_enc", ours, z["encode/pose_enc"], 2e-6)
    back, K = decode(ours)
    yield compare(
        "encode/decoded_extrinsics", back[..., :3, :], z["encode/decoded_extrinsics"], 2e-6
    )
    yield compare_scaled(
        "encode/decoded_intrinsics", K, z["encode/decoded_intrinsics"], 1e-6
    )

    back, K = decode(z["decode/pose_enc"])
    yield compare("decode/extrinsics", back[..., :3, :], z["decode/extrinsics"], 2e-6)
    yield compare_scaled("decode/intrinsics", K, z["decode/intrinsics"], 1e-6)
    yield compare("decode/reencoded", encode(back, K), z["decode/reencoded"], 2e-6)

    @jit
    @jax.grad
    def slope(encoding):
        back, K = pose.decode_pose(encoding, height, width)
        return (back[..., :3, :] * z["decode/cotangent_extrinsics"]).sum() + (
            K * z["decode/cotangent_intrinsics"]
        ).sum()

    ours = slope(z["decode/pose_enc"])
    yield compare_scaled("decode/grad_pose_enc", ours, z["decode/grad_pose_enc"], 1e-5)


def _quaternions(z: Arrays) -> Iterator[Check]:
    """The reference's are scalar last, ours scalar first: the order changes here."""

    def matrix(xyzw):
        return se3.rotation_from_quat(xyzw[..., pose.WXYZ])

    def quaternion(R):
        return se3.quat_from_rotation(R)[..., pose.XYZW]

    for f, group, given, found, slope in (
        (matrix, "quat", "quaternion", "matrix", "grad_quaternion"),
        (quaternion, "mat", "matrix", "quaternion", "grad_matrix"),
    ):

        @jit
        def value_and_slope(x, weights, f=f):
            y, pull = jax.vjp(f, x)
            return y, *pull(weights)

        ours = value_and_slope(z[f"{group}/{given}"], z[f"{group}/cotangent"])
        yield compare(f"{group}/{found}", ours[0], z[f"{group}/{found}"], 2e-6)
        yield compare_scaled(f"{group}/{slope}", ours[1], z[f"{group}/{slope}"], 1e-5)
    back = jit(lambda R: matrix(quaternion(R)))(z["mat/matrix"])
    yield compare("mat/back", back, z["mat/back"], 2e-6)


def _pictures(z: Arrays) -> Iterator[Check]:
    poses = _square(z["unproject/extrinsics"])

    @jit
    def pictures(depth, K, poses, x):
        K = pose.from_integer_centres(K)
        points = jax.vmap(camera.pointmap)(depth, K)
        seen = se3.transform(poses, x)
        uv = jax.vmap(camera.project)(seen, K) - 0.5
        return points, camera.to_world(points, poses), seen, uv

    points, world, seen, uv = pictures(
        z["unproject/depth"][..., 0], z["unproject/intrinsics"], poses, z["project/points"]
    )
    for name, ours in (
        ("unproject/camera_points", points),
        ("unproject/world_points", world),
        ("project/camera_points", np.swapaxes(seen, 1, 2)),
    ):
        yield compare(name, ours, z[name], 1e-5)
    yield compare("unproject/mask", points[..., 2] > 1e-8, z["unproject/mask"], 0)
    yield compare_scaled("project/uv", uv, z["project/uv"], 1e-5)


def _frames(z: Arrays) -> Iterator[Check]:
    ours = jit(se3.invert)(_square(z["inverse/se3"]))
    yield compare("inverse/inverse", ours, z["inverse/inverse"], 2e-6)

    @jit
    def frames(poses, world, depth, valid):
        points = jax.vmap(camera.to_camera)(world, poses[:, 0])
        relative, scale = pose.from_first_view(poses), pose.scene_scale(points, valid)
        scaled = relative.at[..., :3, 3].divide(scale[:, None, None])
        axes = np.s_[:, None, None, None]
        return relative, scaled, points / scale[axes][..., None], depth / scale[axes]

    relative, scaled, points, depth = frames(
        _square(z["encode/extrinsics"]),
        *(z[f"normalise/{name}"] for name in ("world_points", "depth", "mask")),
    )
    for name, ours, tolerance in (
        ("out_extrinsics_no_points", relative[..., :3, :], 2e-6),
        ("out_extrinsics", scaled[..., :3, :], 2e-6),
        ("out_world_points", points, 1e-5),
        ("out_depth", depth, 1e-5),
    ):
        yield compare(f"normalise/{name}", ours, z[f"normalise/{name}"], tolerance)


def _square(top: np.ndarray) -> np.ndarray:
    """f[...,3,4] -> f[...,4,4]."""
    bottom = np.broadcast_to(np.array([0, 0, 0, 1], np.float32), (*top.shape[:-2], 1, 4))
    return np.concatenate([top, bottom], -2)
