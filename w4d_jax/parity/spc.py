"""Spatial projection consistency: both forms, its gradients, selection of pairs."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.kin.camera import project
from w4d_jax.kin.match import Pairs, bilinear, pairs_from_tracks, query_grid
from w4d_jax.kin.pose import decode_pose, from_integer_centres
from w4d_jax.kin.se3 import transform
from w4d_jax.nets.vggt.model import Geometry
from w4d_jax.parity.check import Check, compare, compare_scaled
from w4d_jax.parity.golden import Arrays, jit, load
from w4d_jax.train.defects import RELEASED
from w4d_jax.train.geometry_losses import LossConfig, objective
from w4d_jax.train.geometry_targets import Targets
from w4d_jax.train.spc import (
    consistency,
    gain,
    paper_loss,
    released_loss,
    sure_not_negative,
)

FORMS = "loss", "paper_L_u", "paper_L_u_pixel", "paper_L_depth"


def checks(folder: Path) -> Iterator[Check]:
    z, config, _ = load(folder, "spc")
    slots = max(len(z[f"{case}/confidence"]) for case in config["cases"])
    for case in config["cases"]:
        yield from _case(case, z, slots)
    yield from _selection(z, config["tau"])
    yield _objective(z)
    for name in z:
        if name.startswith("query_grid_"):
            height, width = map(int, name.removeprefix("query_grid_").split("x"))
            yield compare(name, query_grid(height, width)[None], z[name], 5e-5)


def _case(case: str, z: Arrays, slots: int) -> Iterator[Check]:
    def x(name):
        return z[f"{case}/{name}"]

    height, width = size = tuple(map(int, x("image_size")))
    tau = x("weights")[2]
    place, pairs = batched(x, slots)
    given = x("pose_enc"), x("world_points"), x("K"), pairs, x("weights")
    lifted, c, values, by_pose, by_points = jax.device_get(_evaluate(*given, size))
    pose, world, wrist, uv = lifted
    kept = c.front | c.behind
    for name, ours in (
        ("kept", kept[place]),
        ("front", c.front[place]),
        ("n_front", c.front.sum()),
        ("n_back", c.behind.sum()),
        ("n_negative", (c.depth > 0).sum()),
        ("n_above_tau", (pairs.confidence > tau).sum()),
    ):
        yield compare(f"{case}/{name}", ours, x(name), 0)
    front = c.front[place]
    for name, ours in (
        ("extrinsic", pose[:, None, :3]),
        ("point_world", world[place]),
        ("point_wrist", wrist[place]),
        ("projected_uv", np.where(front[:, None], uv[place] - 0.5, 0)),
        ("pair_mse", c.error[place] / gain(height, width)),
    ):
        yield compare_scaled(f"{case}/{name}", ours, x(name), 1e-5)
    for i, form in enumerate(FORMS):
        yield compare_scaled(f"{case}/{form}", values[i], x(form), 1e-5)
        suffix = "" if form == "loss" else f"_{form}"
        for name, ours in (("pose_enc", by_pose[i]), ("world_points", by_points[i])):
            name = f"grad_{name}{suffix}"
            yield compare_scaled(f"{case}/{name}", ours, x(name), 3e-5)
    for name, part, weight in (("sum_front", c.error, 0), ("sum_back", c.depth, 1)):
        ours = part.sum() * x("weights")[weight]
        yield compare_scaled(f"{case}/{name}", ours, x(name), 1e-5)


@partial(jit, static_argnums=5)
def _evaluate(encoding, points, K, pairs, weights, size: tuple[int, int]):
    """What leads to the pairs' parts, the parts, each of FORMS, its two gradients."""
    K = from_integer_centres(K)
    valid = sure_not_negative(pairs, *size, weights[2])

    def forms(encoding, points):
        pose, _ = decode_pose(encoding[:, 0], *size)
        c = consistency(points, pose, K, pairs, valid, size, near=0)
        paper = paper_loss(c, 1, 0)
        values = released_loss(c, *weights[:2]), paper, paper / gain(*size)
        return jnp.stack([*values, paper_loss(c, 0, 1)]), (pose, c)

    values, (pose, c) = forms(encoding, points)
    slopes, _ = jax.jacrev(forms, (0, 1), has_aux=True)(encoding, points)
    world = jax.vmap(bilinear)(points, pairs.view, pairs.anchor_uv)
    wrist = transform(pose, world)
    uv = jax.vmap(project)(wrist, K)
    return (pose, world, wrist, uv), c, values, *slopes


def batched(
    x: Callable[[str], np.ndarray], slots: int
) -> tuple[tuple[np.ndarray, ...], Pairs]:
    """A list of M pairs of all samples -> where each stands in [B,slots], and the Pairs."""
    owner = x("batch_index")
    place = owner, np.arange(len(owner))  # a sample's other slots stay empty
    shape = len(x("K")), slots
    pairs = Pairs(
        np.zeros((*shape, 2), np.float32),
        np.zeros((*shape, 2), np.float32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
    )
    names = "ext_uv", "wrist_uv", "view_index", "confidence"
    for array, name, centre in zip(pairs, names, (0.5, 0.5, 0, 0), strict=True):
        array[place] = x(name) + centre
    return place, pairs


def _objective(z: Arrays) -> Check:
    """The mixed case with weight 2, which the released sum applies twice to the front."""
    _, pairs = batched(lambda name: z[f"mixed/{name}"], len(z["mixed/confidence"]))
    said = Geometry(wrist=z["mixed/pose_enc"][None, :, 0], points=z["mixed/world_points"])
    aim = Targets(*[None] * len(Targets._fields))._replace(
        K=from_integer_centres(jnp.asarray(z["mixed/K"]))
    )
    config = LossConfig(camera=0, wrist=0, projection=2, defects=RELEASED)
    total, _ = objective(said, aim, pairs, tuple(z["mixed/image_size"]), config)
    return compare_scaled("objective_weight2", total, z["objective_weight2"], 1e-5)


def _selection(z: Arrays, tau: float) -> Iterator[Check]:
    pairs = pairs_from_tracks(z["pairs/tracks"], z["pairs/vis"], z["pairs/conf"], tau)
    B, views, N = z["pairs/conf"].shape

    # The reference lists the pairs of one view after the other, in it one sample after the
    # other.
    def listed(slots):
        slots = np.asarray(slots)
        return slots.reshape(B, views - 1, N, *slots.shape[2:]).swapaxes(0, 1)

    found = listed(pairs.confidence) > tau
    batch = np.broadcast_to(np.arange(B)[None, :, None], found.shape)
    for name, ours, tolerance in (
        ("wrist_uv", listed(pairs.wrist_uv) - 0.5, 1e-5),
        ("ext_uv", listed(pairs.anchor_uv) - 0.5, 1e-5),
        ("confidence", listed(pairs.confidence), 0),
        ("view_index", listed(pairs.view), 0),
        ("batch_index", batch, 0),
    ):
        yield compare(f"pairs/{name}", ours[found], z[f"pairs/{name}"], tolerance)
