"""The track head: where query points of the first view are in the others."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from w4d_jax.nets.ops import LayerNorm, Linear, conv3
from w4d_jax.nets.vggt.block import MLP
from w4d_jax.nets.vggt.config import TrackConfig
from w4d_jax.nets.vggt.correlate import correlations, halved, sample
from w4d_jax.nets.vggt.dense import Pyramid, resize, sinusoids
from w4d_jax.nets.vggt.update import Update
from w4d_jax.types import InputError

SPAN = 518  # pixels that a displacement is measured by: the images VGGT was trained on


class Tracks(NamedTuple):
    """Of I steps, the last the best; visible and sure f32[B,V,N] are in (0, 1)."""

    xy: Any  # f32[I,B,V,N,2] pixels, the centres of pixels at integers
    visible: Any
    sure: Any


class TrackHead(nn.Module):
    """taps f[4,B,V,P,D], queries f[B,N,2] (x, y in pixels of view 0) -> Tracks."""

    config: TrackConfig
    patch: int

    def setup(self):
        self.features = Features(self.config, self.patch)
        self.tracker = Tracker(self.config)

    def __call__(self, taps, grid: tuple[int, int], queries):
        return self.tracker(self.features(taps, grid), queries)


class Features(nn.Module):
    """taps f[4,B,V,P,D] -> maps f32[B,V,H/stride,W/stride,F]."""

    config: TrackConfig
    patch: int

    @nn.compact
    def __call__(self, taps, grid: tuple[int, int]):
        x = Pyramid(self.config.dense, positions=False, name="pyramid")(taps, grid)
        x = conv3(self.config.dense.features, "shrink")(x)
        h, w = (n * self.patch // self.config.stride for n in grid)
        x = resize(x, (h, w))
        return x.reshape(*taps.shape[1:3], *x.shape[1:])


class Tracker(nn.Module):
    """maps f[B,V,h,w,F], queries f[B,N,2] -> Tracks.

    A step sees each track's displacement, the correlations around it and its feature, and
    changes place and feature. No gradient passes from one step's places to the next.
    The collection `steps` records samples, tokens and change of each, if asked for.
    """

    config: TrackConfig

    def setup(self):
        config = self.config
        self.width = config.dense.features
        self.map_norm = LayerNorm(1e-5)
        self.corr = MLP(config.width, self.width)
        shape = (2, 3 * self.width + 4)
        self.role = self.param("role", nn.initializers.normal(1.0), shape, jnp.float32)
        self.update = Update(config, 2 + self.width)
        self.feature_norm = LayerNorm(1e-5)
        self.feature = Linear(self.width)
        self.visible = Linear(1)
        self.sure = Linear(1)

    def __call__(self, maps, queries):
        config = self.config
        _, V, h, w, _ = maps.shape
        need = 2 ** (config.levels - 1)
        if min(h, w) < need:
            raise InputError(
                f"track: feature maps of {h} x {w} cells, need {need} or more each way for "
                f"track.levels={config.levels} (larger images, or fewer levels)"
            )
        maps = self.map_norm(maps)
        pyramid = halved(maps, config.levels)
        start = queries / config.stride
        feature = sample(maps[:, 0], start)
        start, feature = (
            jnp.broadcast_to(x[:, None], (x.shape[0], V, *x.shape[1:]))
            for x in (start, feature)
        )
        # Who a track is where: of view 0, or of another; and its place there.
        role = self.role[np.minimum(np.arange(V), 1)][:, None]
        place = _placed(start[:, 0], (h, w), self.role.shape[-1])[:, None]

        def step(head, state, _):
            at, feature = jax.lax.stop_gradient(state[0]), state[1]
            corr = correlations(pyramid, feature, at, config.radius)
            moved = at - at[:, :1]
            tokens = [_ramp(moved, head.width), moved / SPAN, moved / SPAN]
            tokens = jnp.concatenate([*tokens, head.corr(corr), feature], -1)
            tokens = (tokens + place + role).swapaxes(1, 2)  # [B,N,V,I]
            delta = head.update(tokens)
            for name, x in (
                ("samples", corr.swapaxes(1, 2)),
                ("tokens", tokens),
                ("change", delta),
            ):
                head.sow("steps", name, x)
            delta = delta.swapaxes(1, 2)
            change = head.feature(head.feature_norm(delta[..., 2:]))
            feature = feature + nn.gelu(change, approximate=False)
            at = (at + delta[..., :2]).at[:, 0].set(start[:, 0])
            return (at, feature), at

        loop = nn.scan(
            step,
            variable_broadcast="params",
            variable_axes={"steps": 0},
            split_rngs={"params": False},
            length=config.iterations,
        )
        (_, feature), places = loop(self, (start, feature), None)
        visible, sure = (
            nn.sigmoid(head(feature)[..., 0]) for head in (self.visible, self.sure)
        )
        return Tracks(places * config.stride, visible, sure)


def _ramp(moved, width: int):
    """Displacements f[...,2] in cells -> f[...,width]: sine and cosine in turn of x, then
    of y, times 2000 k / (width / 2), k < width / 4. The reference's frequencies rise in
    even steps, and not by powers."""
    half = width // 2
    angle = moved[..., None] * (np.arange(0, half, 2) * np.float32(1000 / half))
    pairs = jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1)
    return pairs.reshape(*moved.shape[:-1], 2 * half)


def _placed(at, size: tuple[int, int], width: int):
    """Sinusoids of cells, x's then y's, sampled at f[B,N,2] between them: f[B,N,width]."""
    halves = []
    for i, n in ((0, size[1]), (1, size[0])):
        table = jnp.asarray(sinusoids(np.arange(n), width // 2, 10000.0))
        x = jnp.clip(at[..., i], 0, n - 1)
        low = jnp.floor(x).astype(int)
        share = (x - low)[..., None]
        halves.append(table[low] * (1 - share) + table[jnp.minimum(low + 1, n - 1)] * share)
    return jnp.concatenate(halves, -1)
