"""Moments through a trained track head once and for all: what tools/track.py runs.

WristWorld stacks the wrist image before the anchors and follows a grid of its points
through them, at every step of training and with the whole network. None of it trains: here
it runs once, and training reads pairs of pixels (data/tracks.py).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from w4d_jax.data.encoded import label, part
from w4d_jax.data.pipeline import names
from w4d_jax.data.source import Part
from w4d_jax.data.store import Records
from w4d_jax.data.tracks import pack
from w4d_jax.kin.match import pairs_from_tracks, query_grid
from w4d_jax.nets.checkpoint import Checkpoint, placed, read_checkpoint
from w4d_jax.nets.lazy import digest
from w4d_jax.nets.vggt import VGGT, VGGTConfig
from w4d_jax.nets.weights import flat, tree
from w4d_jax.train.encode import completed
from w4d_jax.train.geometry_losses import LossConfig
from w4d_jax.train.shard import batch_sharding, make_mesh
from w4d_jax.types import InputError


def settings(config) -> dict[str, Any]:
    """What of a config the pairs hang on. threshold: of the confidence of either end."""
    data = config["data"]
    sizes = {key: data[key] for key in ("frames", "height", "width")}
    threshold = config["loss"].get("threshold", LossConfig.threshold)
    return {"view": names(data["view"]), "threshold": threshold, **sizes}


def track(
    config,
    items,
    model,
    out,
    *,
    side: int = 32,
    margin: float = 32.0,
    host: int = 0,
    hosts: int = 1,
    batch: int | None = None,
    progress=iter,
) -> Records:
    """Writes the part of one host, or goes on with it; nothing where it is complete.

    items: moments (data/scene.py) of the config. model: a folder with imported weights.
    side, margin: of the grid of points, in the wrist image. batch: moments at a time, over
    all devices of this host; None: one each. progress: wraps the moments still to track.
    """
    mine = range(host, len(items), hosts)
    if not (0 <= host < hosts and mine):
        raise InputError(f"host {host} of {hosts}: need one of 0..{len(items) - 1}")
    queries = query_grid(config["data"]["height"], config["data"]["width"], side, margin)
    found = read_checkpoint(model, {"vggt": VGGTConfig})
    of = f"{items!r} by {digest(found.leaves)}, {side}x{side} points, margin {margin:g}"
    place, of = part(out, host, hosts), label(settings(config), of)
    start = partial(tracker, config, found, str(model), queries, batch)
    return completed(place, of, Part(items, mine), start, progress=progress, pack=pack)


def tracker(
    config, model: Checkpoint, name: str, queries: np.ndarray, batch: int | None
) -> tuple[Callable, int]:
    """(run, moments a batch): a batch of moments -> arrays of their Pairs, by following
    queries f32[N,2] of the wrist image, on all devices of this host. InputError for a model
    without a track head."""
    if model.config.track is None:
        raise InputError(f"{name}: has no track head; need VGGT-1B's or WristWorld's")
    unused = dict.fromkeys(("camera", "depth", "point", "wrist"))
    net = VGGT(dataclasses.replace(model.config, **unused))
    data, threshold = config["data"], settings(config)["threshold"]
    images = jnp.zeros((1, len(names(data["view"])), data["height"], data["width"], 3))
    mesh = make_mesh({"data": -1}, jax.local_devices())
    batch = mesh.size if batch is None else batch
    spread, whole = batch_sharding(mesh, batch), NamedSharding(mesh, P())
    shapes = jax.eval_shape(net.init, jax.random.key(0), images, queries[None])["params"]
    wanted = {
        path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole)
        for path, x in flat(shapes).items()
    }
    leaves = {path: leaf for path, leaf in model.leaves.items() if path in wanted}
    with jax.set_mesh(mesh):
        params = tree(placed(leaves, wanted, name))

    @jax.jit
    def pairs(params, wrist, anchors):
        views = jnp.concatenate([wrist[:, None], anchors], 1).astype(jnp.float32) / 255
        points = jnp.broadcast_to(queries, (len(views), *queries.shape))
        tracks = net.apply({"params": params}, views, points).tracks
        found = tracks.xy[-1], tracks.visible, tracks.sure
        return pairs_from_tracks(*found, threshold)._asdict()

    def run(moments):
        views = jax.device_put((moments["wrist_rgb"], moments["rgb"]), spread)
        with jax.set_mesh(mesh):
            return jax.device_get(pairs(params, *views))

    return run, batch
