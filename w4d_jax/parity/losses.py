"""Losses of poses, depths and points, and the whole objective: values and gradients."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.kin.pose import encode_pose, from_integer_centres
from w4d_jax.kin.se3 import rigid
from w4d_jax.nets.vggt.model import Geometry
from w4d_jax.parity.check import Check, compare, compare_scaled
from w4d_jax.parity.golden import Arrays, jit, load
from w4d_jax.parity.spc import batched
from w4d_jax.train.defects import RELEASED
from w4d_jax.train.dense_loss import (
    by_confidence,
    by_confidence_of_all,
    dense_loss,
    edges,
    normals,
)
from w4d_jax.train.geometry_losses import LossConfig, objective
from w4d_jax.train.geometry_targets import FEWEST, Targets
from w4d_jax.train.pose_loss import as_written, by_place, euclidean, pose_loss

# Options of pose_loss, weights of the parts.
PAPER = (1.0, 1.0, 0.5)
CAMERA = {
    "camera_flattened": ({"mean": by_place}, PAPER),
    "camera_intended": ({}, PAPER),
    "camera_intended_l2": ({"distance": euclidean}, PAPER),
    "camera_intended_weighted": ({"decay": 0.8}, (2.0, 0.5, 0.25)),
    "camera_masked": ({}, PAPER),
}
WRIST = {
    "wrist_fov_only": ({}, (0.0, 0.0, 1.0)),
    "wrist_all": ({}, (1.0, 1.0, 1.0)),
    "wrist_l2": ({"distance": euclidean}, (1.0, 1.0, 1.0)),
    "wrist_gamma": ({"decay": 0.35}, (0.7, 1.3, 0.4)),
}
# Options of dense_loss.
OTHER = {"gamma": 0.7, "alpha": 0.3}  # of the pixels; slopes keep theirs
DEPTH = {
    "depth_plain": {},
    "depth_no_nan_mask": {},
    "depth_few": {},
    "depth_grad": {"slope": edges},
    "depth_grad_quantile": {"slope": edges, "quantile": 0.98},
    "depth_grad_conf": {"slope": partial(edges, weigh=by_confidence_of_all), **OTHER},
}
POINT = {
    "point_plain": {},
    "point_grad": {"slope": edges},
    "point_normal": {"slope": normals},
    "point_normal_quantile": {"slope": normals, "quantile": 0.98},
    "point_normal_conf": {"slope": partial(normals, weigh=by_confidence), **OTHER},
}


def checks(folder: Path) -> Iterator[Check]:
    z, _, _ = load(folder, "losses")
    height, width = map(int, z["image_size"])
    size = height, width
    yield from _poses("camera", CAMERA, z, size)
    yield from _poses("wrist", WRIST, z, size)
    yield from _dense("depth", DEPTH, z)
    yield from _dense("point", POINT, z)
    yield from _objective(z, size)


def _poses(group: str, cases, z: Arrays, size: tuple[int, int]) -> Iterator[Check]:
    target, masks = z[f"{group}/target"], {}
    if group == "camera":
        first = z["camera_masked/point_masks"][:, 0].sum((-2, -1)) > FEWEST
        masks["camera_masked"] = np.broadcast_to(first[:, None], target.shape[:-1])

    def loss(steps, case):
        options, weights = cases[case]
        parts = pose_loss(steps, target, masks.get(case), difference=as_written, **options)
        return parts.total(weights), parts

    @jit
    def evaluate(top, K, steps):
        pose = rigid(top[..., :3], top[..., 3])
        slopes = {
            case: jax.value_and_grad(loss, has_aux=True)(steps, case) for case in cases
        }
        return encode_pose(pose, K, *size), slopes

    names = "extrinsics", "intrinsics", "pred"
    encoding, found = jax.device_get(evaluate(*(z[f"{group}/{name}"] for name in names)))
    yield compare(f"{group}/target", encoding, target, 2e-6)
    for case, ((total, parts), slope) in found.items():
        terms = zip(("total", "T", "R", "FL"), (total, *parts), strict=True)
        yield from _terms(case, z, terms)
        yield compare_scaled(f"{case}/grad_pred", slope, z[f"{case}/grad_pred"], 1e-5)


def _dense(group: str, cases, z: Arrays) -> Iterator[Check]:
    target = z[f"{group}/target"]
    target = target[..., None] if group == "depth" else target
    valid = dict.fromkeys(cases, z[f"{group}/point_masks"])
    if group == "depth":
        valid = {case: mask & ~z["depth/nan_masks"] for case, mask in valid.items()}
        valid["depth_no_nan_mask"] = z["depth/point_masks"]
        valid["depth_few"] = z["depth_few/point_masks"]

    def loss(x, confidence, case):
        x, confidence, aim, mask = (
            a.reshape(-1, *a.shape[2:]) for a in (x, confidence, target, valid[case])
        )
        terms = dense_loss(x, confidence, aim, mask, **cases[case])
        return terms.total, terms

    @jit
    def evaluate(*given):
        slopes = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        return {case: slopes(*given, case) for case in cases}

    found = evaluate(z[f"{group}/pred"], z[f"{group}/pred_conf"])
    for case, ((total, terms), slopes) in jax.device_get(found).items():
        terms = zip(("total", "conf", "reg", "grad"), (total, *terms), strict=True)
        yield from _terms(case, z, terms)
        for name, slope in zip(("grad_pred", "grad_pred_conf"), slopes, strict=True):
            yield compare_scaled(f"{case}/{name}", slope, z[f"{case}/{name}"], 1e-5)


def _objective(z: Arrays, size: tuple[int, int]) -> Iterator[Check]:
    renamed = {"view_index": "pair_type", "batch_index": "batch_indices"}

    def x(name):
        return (
            z["wrist/target"] if name == "K" else z[f"objective/{renamed.get(name, name)}"]
        )

    _, pairs = batched(x, len(z["objective/confidence"]))
    sure = np.ones(len(z["wrist/target"]), bool)
    aim = Targets(
        pose=z["camera/target"],
        wrist=z["wrist/target"][:, 0],
        K=from_integer_centres(jnp.asarray(z["wrist/intrinsics"][:, 0])),
        sure=sure,
        **dict.fromkeys(("depth", "points", "valid", "unit")),
    )
    config = LossConfig(defects=RELEASED)

    @jit
    @partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
    def evaluate(cameras, wrist, points):
        said = Geometry(pose=cameras, wrist=wrist[:, :, 0], points=points)
        return objective(said, aim, pairs, size, config)

    given = z["camera/pred"], z["objective/wrist_pred"], z["point/target"]
    (total, terms), slopes = jax.device_get(evaluate(*given))
    del terms["spc_pairs"], terms["spc_behind"]
    yield from _terms("objective", z, (terms | {"total": total}).items())
    for name, slope in zip(
        ("camera_pred", "wrist_pred", "world_points"), slopes, strict=True
    ):
        name = f"objective/grad_{name}"
        yield compare_scaled(name, slope, z[name], 1e-5)


def _terms(case: str, z: Arrays, terms: Iterable) -> Iterator[Check]:
    for name, ours in terms:
        theirs = z[f"{case}/{name}"]
        yield compare(f"{case}/{name}", ours, theirs, 1e-5 * abs(float(theirs)) + 1e-6)
