"""VGGT with WristWorld's head: each stage, each refinement, gradients of the pose heads."""

import dataclasses
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jax
import numpy as np

from w4d_jax.nets.vggt import VGGT, VGGTConfig
from w4d_jax.nets.vggt.config import DenseConfig, PoseConfig, TrackConfig, WristConfig
from w4d_jax.nets.vggt.encoder import Encoder, resized
from w4d_jax.nets.vggt.names import vggt
from w4d_jax.nets.vggt.track import Features, Tracker
from w4d_jax.nets.vggt.wrist import Gather
from w4d_jax.nets.weights import from_torch, to_torch
from w4d_jax.parity.check import Check, compare
from w4d_jax.parity.golden import Arrays, jit, load

CLOSE = 5e-5  # tokens, encodings, dense values
STEP = ("samples", "track_corr"), ("tokens", "track_in"), ("change", "track_delta")


def checks(folder: Path) -> Iterator[Check]:
    z, entry, weights = load(folder, "vggt")
    model = Model(entry, weights)
    yield from encoder(model, z)
    taps = model.aggregate(model.params, images(z))
    yield from tokens(z, taps)
    yield from cameras(model, model.params, z, taps)
    yield from dense(model, z, taps)
    yield from tracks(model, z, taps)
    yield from gradients(model, z, taps)
    yield from other_sizes(model, z)
    yield from small(model, z, weights, entry["small_scale"])
    yield from wide_tracks(model, z, taps, entry["track_wide"])


class Model:
    """The network of a golden file: its parts, compiled apart, and its parameters."""

    def __init__(self, entry: dict[str, Any], weights: dict[str, np.ndarray]):
        self.config = model_config(entry)
        assert self.config.track and self.config.wrist
        self.table = vggt(self.config)
        self.params = from_torch(self.table, weights)
        pose = dataclasses.replace(self.config, depth=None, point=None, track=None)
        maps = dataclasses.replace(self.config, camera=None, wrist=None, track=None)
        self.encode = jit(_apply(Encoder(self.config)))
        self.aggregate = jit(_apply(VGGT(self.config), "aggregate"))
        self.describe_poses = _apply(VGGT(pose), "describe")
        self.poses = jit(self.describe_poses)
        self.maps = jit(_apply(VGGT(maps), "describe"))
        self.gather = jit(_apply(Gather(self.config.wrist)))
        self.features = jit(
            _apply(Features(self.config.track, self.config.patch)), static_argnums=2
        )

        self.track = jit(tracker(self.config.track))


def tracker(config: TrackConfig):
    """(params, maps, queries) -> Tracks and what each step recorded."""

    def run(params, maps, queries):
        return Tracker(config).apply({"params": params}, maps, queries, mutable="steps")

    return run


def encoder(model: Model, z: Arrays) -> Iterator[Check]:
    x, params = images(z), model.params["aggregator"]["encoder"]
    ours = model.encode(params, x.reshape(-1, *x.shape[2:]))
    first = model.config.special
    yield compare("dino_cls", ours[:, 0], z["dino_cls"], CLOSE)
    yield compare("dino_registers", ours[:, 1:first], z["dino_registers"], CLOSE)
    yield compare("dino_patch_tokens", ours[:, first:], z["dino_patch_tokens"], CLOSE)
    grid = model.config.grid(*x.shape[2:4])
    ours = jit(resized, static_argnums=(1, 2))(
        params["position"], model.config.positions, grid
    )
    name = "pos_embed_interpolated"
    yield compare(name, ours[None], z[name], 1e-5)


def tokens(z: Arrays, taps) -> Iterator[Check]:
    for i, tap in enumerate(taps):
        yield compare(f"agg_{i}", tap, z[f"agg_{i}"], CLOSE)


def cameras(
    model: Model, params, z: Arrays, taps, case: str = "", tolerance: float = CLOSE
) -> Iterator[Check]:
    """All refinements of both pose heads."""
    found = model.poses(params, taps, images(z, case))
    yield compare(
        f"{case}camera_pose_enc", found.pose, z[f"{case}camera_pose_enc"], tolerance
    )
    theirs = z[f"{case}wrist_pose_enc"][:, :, 0]
    yield compare(f"{case}wrist_pose_enc", found.wrist, theirs, tolerance)
    if f"{case}wrist_query" in z:
        ours = model.gather(params["wrist"]["gather"], taps[-1])
        yield compare(f"{case}wrist_query", ours, z[f"{case}wrist_query"], tolerance)


def dense(model: Model, z: Arrays, taps, case: str = "") -> Iterator[Check]:
    found = model.maps(model.params, taps, images(z, case))
    for name, ours in (
        ("depth", found.depth[..., None]),
        ("depth_conf", found.depth_confidence),
        ("world_points", found.points),
        ("world_points_conf", found.points_confidence),
    ):
        if case + name in z:
            yield compare(case + name, ours, z[case + name], CLOSE)


def tracks(model: Model, z: Arrays, taps) -> Iterator[Check]:
    params, grid = model.params["track"], model.config.grid(*size(z))
    maps = model.features(params["features"], taps, grid)
    theirs = np.moveaxis(z["track_features"], 2, -1)
    yield compare("track_features", maps, theirs, CLOSE)
    found = model.track(params["tracker"], maps, z["query_points"])
    yield from _tracked(found, z, "")


def _tracked(found, z: Arrays, case: str) -> Iterator[Check]:
    """Steps after the first amplify rounding: to be looked at, more than to be judged."""
    ours, recorded = found
    for ours_name, name in STEP:
        for i, x in enumerate(recorded["steps"][ours_name][0]):
            key = f"{case}{name}_{i}"
            if key in z:
                yield compare(key, x, z[key], 5e-2 if i else 1e-4)
    for name, x in (
        ("track_all", ours.xy),
        ("track", ours.xy[-1]),
        ("vis", ours.visible),
        ("conf", ours.sure),
    ):
        if case + name in z:
            yield compare(case + name, x, z[case + name], 1e-3)


def gradients(model: Model, z: Arrays, taps) -> Iterator[Check]:
    """Of the sum of all refinements of both heads, each number weighed."""
    weights = z["grad_cotangent_camera"], z["grad_cotangent_wrist"][:, :, 0]

    @jit
    @jax.value_and_grad
    def scalar(heads, taps):
        found = model.describe_poses(heads, taps, images(z))
        return (found.pose * weights[0]).sum() + (found.wrist * weights[1]).sum()

    heads = {name: model.params[name] for name in ("camera", "wrist")}
    value, slopes = scalar(heads, taps)
    yield compare("grad_scalar", value, z["grad_scalar"], 1e-4 * _largest(z["grad_scalar"]))
    rows = tuple(row for row in model.table if row.ours.split("/")[0] in heads)
    for name, slope in to_torch(rows, slopes).items():
        theirs, norm = z[f"grad/{name}"], z[f"gradnorm/{name}"]
        # Of large ones every n-th number is in the file.
        ours = slope.ravel()[:: -(-slope.size // theirs.size)]
        yield compare(f"grad/{name}", ours, theirs, 1e-4 * _largest(theirs) + 5e-5)
        length = np.linalg.norm(slope.astype(np.float64))
        yield compare(f"gradnorm/{name}", length, norm, 1e-4 * _largest(norm) + 5e-5)


def other_sizes(model: Model, z: Arrays) -> Iterator[Check]:
    """From the image on: one view; a patch grid for which positions are not resized."""
    last = len(model.config.taps) - 1
    for case in ("single_view/", "native_square/"):
        x, params = images(z, case), model.params["aggregator"]["encoder"]
        ours = model.encode(params, x.reshape(-1, *x.shape[2:]))[:, model.config.special :]
        name = f"{case}dino_patch_tokens"
        yield compare(name, ours, z[name], CLOSE)
        taps = model.aggregate(model.params, x)
        yield compare(f"{case}agg_{last}", taps[-1], z[f"{case}agg_{last}"], CLOSE)
        yield from cameras(model, model.params, z, taps, case)
        if f"{case}depth" in z:
            yield from dense(model, z, taps, case)


def small(model: Model, z: Arrays, weights, factors: dict[str, float]) -> Iterator[Check]:
    """Activations so small that the epsilon of a norm shows."""
    case, last = "small_scale/", len(model.config.taps) - 1
    shrunk = dict(weights)
    for pattern, factor in factors.items():
        for name in weights:
            if fnmatch(name, pattern):
                shrunk[name] = np.float32(factor) * weights[name]
    params = from_torch(model.table, shrunk)
    x = images(z)
    ours = model.encode(params["aggregator"]["encoder"], x.reshape(-1, *x.shape[2:]))
    name = f"{case}dino_patch_tokens"
    yield compare(name, ours[:, model.config.special :], z[name], 1e-4)
    taps = model.aggregate(params, x)
    for i in (0, last):
        yield compare(f"{case}agg_{i}", taps[i], z[f"{case}agg_{i}"], 1e-4)
    yield from cameras(model, params, z, taps, case, 1e-4)
    maps = model.features(params["track"]["features"], taps, model.config.grid(*size(z)))
    found = model.track(params["track"]["tracker"], maps, z["query_points"])
    yield from _tracked(found, z, case)

    case = "scaled_tokens/"
    taps = 0.01 * np.stack([z[f"agg_{i}"] for i in range(last + 1)])
    yield from cameras(model, model.params, z, taps, case)
    yield from dense(model, z, taps, case)


def wide_tracks(model: Model, z: Arrays, taps, entry: dict[str, Any]) -> Iterator[Check]:
    """Displacements of several pixels: the rows of the two coordinates scaled up."""
    params = model.params["track"]
    maps = model.features(params["features"], taps, model.config.grid(*size(z)))
    scale = np.ones(2 + maps.shape[-1], np.float32)
    scale[:2] = entry["factor"]
    update = params["tracker"]["update"]
    out = jax.tree.map(lambda a: a * scale, update["out"])
    wide = params["tracker"] | {"update": update | {"out": out}}
    assert model.config.track
    few = dataclasses.replace(model.config.track, iterations=entry["iterations"])
    track = jit(tracker(few))
    yield from _tracked(track(wide, maps, z["query_points"]), z, "track_wide/")


def images(z: Arrays, case: str = "") -> np.ndarray:
    """f32[B,V,H,W,3]; cases without any have the main one's."""
    name = f"{case}images"
    return np.moveaxis(z[name if name in z else "images"], 2, -1)


def size(z: Arrays) -> tuple[int, int]:
    """Height and width of the main case's images."""
    return images(z).shape[2:4]


def model_config(entry: dict[str, Any]) -> VGGTConfig:
    """The file's config, in our words."""
    m, steps = entry["model"], entry["iterations"]
    dense = DenseConfig(m["features"], m["out_channels"])
    return VGGTConfig(
        patch=m["patch_size"],
        positions=m["img_size"] // m["patch_size"],
        width=m["embed_dim"],
        heads=m["agg_heads"],
        layers=m["agg_depth"],
        encoder_layers=m["dino_depth"],
        encoder_heads=m["dino_heads"],
        taps=m["taps"],
        camera=PoseConfig(m["cam_trunk"], m["cam_heads"], steps),
        depth=dense,
        point=dense,
        track=TrackConfig(
            DenseConfig(m["track_features"], m["out_channels"]),
            levels=m["corr_levels"],
            radius=m["corr_radius"],
            width=m["track_hidden"],
            layers=m["track_depth"],
            heads=m["track_heads"],
            virtual=m["virtual_tracks"],
            iterations=steps,
            stride=entry["track_stride"],
        ),
        wrist=WristConfig(
            m["wrist_agg_layers"],
            m["wrist_agg_heads"],
            pose=PoseConfig(m["wrist_trunk"], m["wrist_heads"], steps),
        ),
    )


def _largest(x: np.ndarray) -> float:
    return float(np.linalg.norm(x.ravel(), np.inf))


def _apply(net, method: str | None = None):
    """f(params, ...) of a module or of one of its methods."""

    def run(params, *arguments):
        return net.apply({"params": params}, *arguments, method=method)

    return run
