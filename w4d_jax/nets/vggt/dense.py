"""Dense heads: from tokens at four depths to a value and a confidence for every pixel.

The dense prediction transformer of arXiv 2103.13413 as VGGT has it, where the residual of
a convolution unit is the ReLU of its input (the reference's works in place).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn

from w4d_jax.nets.ops import LayerNorm, Linear, conv3, xavier, zeros
from w4d_jax.nets.vggt.config import DenseConfig
from w4d_jax.nets.vggt.stem import Stem


class DenseHead(nn.Module):
    """taps f[4,B,V,P,D] of patches on `grid`, of images f[B,V,H,W,3] -> value
    f32[B,V,H,W,C], confidence f32[B,V,H,W] > 1. `activate` maps what the network says to
    the value."""

    config: DenseConfig
    channels: int
    activate: Callable
    patch: int

    @nn.compact
    def __call__(self, taps, grid: tuple[int, int], images):
        features, size = self.config.features, (self.patch * grid[0], self.patch * grid[1])
        fine = Stem(self.config.fine, name="fine")(images.reshape(-1, *images.shape[2:]))
        x = Pyramid(self.config, positions=True, name="pyramid")(taps, grid, fine)
        x = conv3(features // 2, "shrink")(x)
        x = with_position(resize(x, size), size)
        x = nn.relu(conv3(32, "out1")(x))
        x = Linear(self.channels + 1, name="out2")(x)
        x = x.reshape(*taps.shape[1:3], *x.shape[1:])
        return self.activate(x[..., :-1]), 1 + jnp.exp(x[..., -1])


class Pyramid(nn.Module):
    """taps f[4,B,V,P,D] -> f32[B V,8h,8w,F]: four resolutions of the patch grid (h, w), 4x,
    2x, 1x and half, joined from coarse to fine and doubled. Maps f[B V,H,W,C] of one of
    these sizes are added there, by a convolution."""

    config: DenseConfig
    positions: bool

    @nn.compact
    def __call__(self, taps, grid: tuple[int, int], maps=()):
        config, norm, laterals = self.config, LayerNorm(1e-5, name="norm"), []
        fine = {m.shape[1:3]: m for m in maps}

        def with_fine(x, name: str):
            m = fine.get(x.shape[1:3])
            return x if m is None else x + conv3(x.shape[-1], name, bias=False)(m)

        half = conv3(config.channels[3], "fit3", stride=2)
        fit = Upsample(4, name="fit0"), Upsample(2, name="fit1"), lambda x: x, half
        patches = taps[:, :, :, -grid[0] * grid[1] :]
        for i, width in enumerate(config.channels):
            x = rearrange(patches[i], "b v (h w) d -> (b v) h w d", h=grid[0])
            x = Linear(width, name=f"project{i}")(norm(x))
            if self.positions:
                x = with_position(x, grid)
            x = conv3(config.features, f"lateral{i}", bias=False)(fit[i](x))
            laterals.append(with_fine(x, f"fine{i}"))

        x = laterals[3]
        for i in (3, 2, 1, 0):
            if i < 3:
                x = x + Unit(name=f"join{i}_side")(laterals[i])
            x = Unit(name=f"join{i}")(x)
            (h, w), finer = x.shape[1:3], laterals[i - 1].shape[1:3]
            x = resize(x, finer if i else (2 * h, 2 * w))
            x = Linear(config.features, name=f"join{i}_out")(x)
        return with_fine(x, "fine")


class Unit(nn.Module):
    """Two convolutions beside relu(x) f[N,H,W,F]."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(x)
        h = nn.relu(conv3(x.shape[-1], "conv1")(x))
        return x + conv3(x.shape[-1], "conv2")(h)


class Upsample(nn.Module):
    """Each cell of x f[N,h,w,C] becomes k x k cells: f[N,kh,kw,C], a transposed convolution
    whose stride is its kernel. kernel f[I,k,k,O]."""

    factor: int

    @nn.compact
    def __call__(self, x):
        k, width = self.factor, x.shape[-1]
        kernel = self.param("kernel", xavier, (width, k, k, width), jnp.float32)
        bias = self.param("bias", zeros, (width,), jnp.float32)
        x = x @ kernel.reshape(width, -1)
        return rearrange(x, "n h w (p q c) -> n (h p) (w q) c", p=k, q=k) + bias


def resize(x, size: tuple[int, int]):
    """Bilinear, corners on corners: x f[N,H,W,C] -> f[N,*size,C]."""
    for axis, n in ((1, size[0]), (2, size[1])):
        at = np.linspace(0, x.shape[axis] - 1, n)
        low = np.minimum(at.astype(int), max(x.shape[axis] - 2, 0))
        high = np.minimum(low + 1, x.shape[axis] - 1)
        share = (at - low).astype(np.float32).reshape([-1] + [1] * (3 - axis))
        x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return x


def with_position(x, grid: tuple[int, int]):
    """x f[N,h,w,C] plus a tenth of the sinusoids of each cell's place, its column's in the
    first half of the channels, its row's in the other.

    Places are the cells' centres in a rectangle of the grid's aspect and of diagonal 2.
    """
    spans = (n / np.hypot(*grid) * np.linspace(-1, 1, 2 * n + 1)[1::2] for n in grid)
    rows, columns = (0.1 * sinusoids(at, x.shape[-1] // 2, 100.0) for at in spans)
    left, right = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([left + columns, right + rows[:, None]], -1)


def sinusoids(at: np.ndarray, width: int, base: float) -> np.ndarray:
    """at f[L] -> f32[L,width]: sines, then cosines of at base^(-2k/width)."""
    angle = np.outer(at, base ** (-2 * np.arange(width // 2) / width))
    return np.concatenate([np.sin(angle), np.cos(angle)], -1).astype(np.float32)


def signed_expm1(y):
    """The inverse of sign(x) log(1 + |x|): points near and far."""
    return jnp.sign(y) * jnp.expm1(jnp.abs(y))
