"""VGGT with WristWorld's head: views in; cameras, depth, points, tracks, wrist camera out.

Numbers: `VGGTConfig()` has 1,623,789 k parameters (docs/vggt.md has them by part).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from w4d_jax.nets.vggt.aggregate import Aggregator
from w4d_jax.nets.vggt.config import VGGTConfig
from w4d_jax.nets.vggt.dense import DenseHead, signed_expm1
from w4d_jax.nets.vggt.refine import Refine
from w4d_jax.nets.vggt.track import TrackHead, Tracks
from w4d_jax.nets.vggt.wrist import WristHead
from w4d_jax.types import InputError


class Geometry(NamedTuple):
    """What the heads say, None where there is no such head. The world is the camera of view
    0; the unit of length is the network's. Poses are encodings (kin/pose.py), one for each
    of I refinements, the last the best; confidences are above 1."""

    pose: Any = None  # f32[I,B,V,9]
    depth: Any = None  # f32[B,V,H,W]
    depth_confidence: Any = None  # f32[B,V,H,W]
    points: Any = None  # f32[B,V,H,W,3]
    points_confidence: Any = None  # f32[B,V,H,W]
    tracks: Tracks | None = None
    wrist: Any = None  # f32[I,B,9]


class VGGT(nn.Module):
    """images f[B,V,H,W,3] in [0, 1], queries f[B,N,2] (x, y of view 0, pixel centres at
    integers) or None -> Geometry.

    Its two stages can be had alone: `aggregate` (frozen in WristWorld) and `describe`.
    """

    config: VGGTConfig

    def setup(self):
        config = self.config
        wide, side = 2 * config.width, config.patch
        self.aggregator = Aggregator(config)
        self.camera = config.camera and Refine(config.camera, wide)
        self.depth = config.depth and DenseHead(config.depth, 1, jnp.exp, side)
        self.point = config.point and DenseHead(config.point, 3, signed_expm1, side)
        self.track = config.track and TrackHead(config.track, side)
        self.wrist = config.wrist and WristHead(config.wrist, wide)

    def __call__(self, images, queries=None):
        return self.describe(self.aggregate(images), images, queries)

    def aggregate(self, images):
        """-> taps f32[4,B,V,P,2C]."""
        return self.aggregator(images)

    def describe(self, taps, images, queries=None):
        """What the heads see in the taps of images."""
        grid, tokens = self.config.grid(*images.shape[2:4]), taps[-1]
        found = {}
        if self.camera:
            found["pose"] = self.camera(tokens[:, :, 0])
        if self.depth:
            depth, found["depth_confidence"] = self.depth(taps, grid, images)
            found["depth"] = depth[..., 0]
        if self.point:
            found["points"], found["points_confidence"] = self.point(taps, grid, images)
        if self.wrist:
            self._check_row(tokens.shape[1], grid)
            found["wrist"] = self.wrist(tokens)
        if queries is not None:
            if not self.track:
                raise InputError("queries given, but the model has no track head")
            found["tracks"] = self.track(taps, grid, queries)
        return Geometry(**found)

    def _check_row(self, views: int, grid: tuple[int, int]):
        """InputError where the wrist's head takes one number of views of one size."""
        wrist, side = self.config.wrist, self.config.positions
        if wrist and wrist.views and (views, grid) != (wrist.views, (side, side)):
            raise InputError(
                f"{views} views of {grid[0]}x{grid[1]} patches: wrist.views={wrist.views} "
                f"needs {wrist.views} of {side}x{side}"
            )
