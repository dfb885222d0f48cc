"""Condition maps: the released renderer's pixels, depths and visible points."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.kin.camera import project
from w4d_jax.kin.pose import decode_pose
from w4d_jax.kin.se3 import rigid, transform
from w4d_jax.kin.splat import NEAR, released_bytes, released_map
from w4d_jax.parity.check import Check, compare, compare_scaled
from w4d_jax.parity.golden import Arrays, load
from w4d_jax.types import Camera


def checks(folder: Path) -> Iterator[Check]:
    z, config, _ = load(folder, "condition")
    yield compare("z_min", NEAR, config["z_min"], 0)
    slots = max(len(z[f"{case}/points"]) for case in config["cases"])
    for case in config["cases"]:
        yield from _case(case, z, slots)
    yield from _pipeline(z)
    levels = z["color_levels_in"][:, None]
    ours = released_bytes(levels, np.ones(len(levels), bool))[:, 0]
    yield compare("color_levels_out", ours, z["color_levels_out"], 0)


def _case(case: str, z: Arrays, slots: int) -> Iterator[Check]:
    """Each cloud is filled up to one size with points at the camera's own place, which it
    does not see."""
    top = z[f"{case}/extrinsic"]
    height, width = map(int, z[f"{case}/image_size"])
    camera = Camera(width, height, z[f"{case}/intrinsic"], np.eye(4, dtype=np.float32))
    camera = jax.tree.map(jnp.asarray, camera)
    pose = rigid(jnp.asarray(top[:, :3]), jnp.asarray(top[:, 3]))
    given, colors = z[f"{case}/points"], z[f"{case}/colors"]
    points = np.tile(-top[:, :3].T @ top[:, 3], (slots, 1))
    points[: len(given)] = given
    padded = np.zeros((slots, 3), np.float32)
    padded[: len(given)] = colors
    camera = Camera(width, height, camera.K, pose)
    drawn = jax.device_get(released_map(points[None], padded[None], camera))
    rgb, depth, index = (x[0] for x in drawn)

    seen, uv = np.asarray(transform(pose, given)), np.zeros((len(given), 2), np.float32)
    front = seen[:, 2] > NEAR
    uv[front] = project(seen[front], camera.K)
    visible = front & (uv >= 0).all(-1) & (uv < [width, height]).all(-1)
    yield compare(f"{case}/visible", visible, z[f"{case}/visible"], 0)
    uv = np.where(visible[:, None], uv, 0)
    yield compare_scaled(f"{case}/uv", uv, z[f"{case}/uv"], 1e-5)

    sure = ~z[f"{case}/fragile"]
    for name, ours, tolerance in (
        ("image", rgb, 0),
        ("zbuffer", depth, 1e-5),
        ("index", index, 0),
    ):
        name = f"{case}/{name}"
        yield compare(name, ours[sure], z[name][sure], tolerance)
    if f"{case}/ambiguous" in z:
        # At equal depths the lower index wins here; elsewhere there is one answer.
        yield compare(f"{case}/image_low_index", rgb, z[f"{case}/image_low_index"], 0)
        sure = ~z[f"{case}/ambiguous"]
        name = f"{case}/image_high_index"
        yield compare(name, rgb[sure], z[name][sure], 0)


def _pipeline(z: Arrays) -> Iterator[Check]:
    """From pointmaps, images and an encoding to what is drawn."""
    size = map(int, z["pipeline/image_size"])
    pose, K = decode_pose(z["pipeline/pose_enc"], *size)
    for name, ours in (
        ("points", z["pipeline/world_points"].reshape(-1, 3)),
        ("colors", np.moveaxis(z["pipeline/images"], 1, -1).reshape(-1, 3)),
        ("extrinsic", pose[:3]),
        ("intrinsic", K),
    ):
        name = f"pipeline/{name}"
        yield compare_scaled(name, ours, z[name], 1e-6)
