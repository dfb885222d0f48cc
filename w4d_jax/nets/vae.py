"""Wan2.1's causal 3D video autoencoder: 1 + 4k frames, 8 x 8 pixels a latent cell.

Every operation over time looks backwards only, so that a clip can be coded whole or in
chunks that carry the last frames of each layer along (the collection `past`). Both give
the same numbers: the chunk is a knob of memory alone. Without a `past` a call starts a
clip: causal convolutions see zeros before it, and its first frame passes the temporal
resampling untouched. So latent frame 0 is the code of frame 0 as a picture.

Channels last. Weights decide the precision: cast them (and the video) to bfloat16 to work
in it; norms are float32 inside.
"""

import dataclasses
import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn

from w4d_jax.nets import layout
from w4d_jax.nets.grid import latent_shape

# fmt: off
WAN_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)
WAN_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)
# fmt: on


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """Wan2.1's own sizes."""

    base: int = 96  # channels at full resolution
    multipliers: tuple[int, ...] = (1, 2, 4, 4)  # of base, one a resolution
    blocks: int = 2  # residual blocks a resolution; the decoder has one more
    temporal: tuple[bool, ...] = (False, True, True)  # which downsamplings halve time
    latent: int = 16
    # Of the latents of natural video, by channel: what makes them about unit normal.
    mean: tuple[float, ...] = WAN_MEAN
    std: tuple[float, ...] = WAN_STD

    def __post_init__(self):
        for name in ("multipliers", "temporal", "mean", "std"):  # lists, out of JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def stride(self) -> tuple[int, int, int]:
        side = 2 ** len(self.temporal)
        return 2 ** sum(self.temporal), side, side


class Posterior(NamedTuple):
    """A diagonal Gaussian over latents, not normalised."""

    mean: jax.Array  # f[B,t,h,w,C], also the mode
    logvar: jax.Array  # f[B,t,h,w,C], within [-30, 20]

    def sample(self, key):
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(0.5 * self.logvar) * noise


@partial(jax.jit, static_argnums=1)
def init(key, config: VAEConfig):
    """Random parameters {"encoder", "decoder"}; `jax.eval_shape` it for shapes alone.

    Kernels are uniform with variance 1 / inputs. One draw serves them all: XLA compiles a
    generator for every draw, which for 60 kernels takes half a minute on a CPU.
    """
    video = jnp.zeros((1, 1, *config.stride[1:], 3))
    latent = jnp.zeros((1, 1, 1, 1, config.latent))
    params = {
        "encoder": Encoder(config).init(key, video)["params"],
        "decoder": Decoder(config).init(key, latent)["params"],
    }
    kernels = [a.shape for a in jax.tree.leaves(params) if a.ndim == 5]
    ends = np.cumsum([math.prod(shape) for shape in kernels])
    noise = iter(jnp.split(jax.random.uniform(key, (ends[-1],), minval=-1), ends[:-1]))

    def draw(a):
        if a.ndim < 5:
            return a
        return next(noise).reshape(a.shape) * math.sqrt(3 / math.prod(a.shape[:-1]))

    return jax.tree.map(draw, params)


def encode(params, config: VAEConfig, video, chunk: int | None = None) -> Posterior:
    """video f[B,T,H,W,3] in [-1,1], T = 4k+1 -> Posterior f[B,t,h,w,C].

    chunk: latent frames at a time after the first; None is the whole clip at once.
    """
    _, frames, height, width, _ = video.shape
    latent_shape(frames, height, width, config.stride)
    size = None if chunk is None else chunk * config.stride[0]
    moments = _run(Encoder(config), params["encoder"], video, size)
    mean, logvar = jnp.split(moments, 2, -1)
    return Posterior(mean, jnp.clip(logvar, -30, 20))


def decode(params, config: VAEConfig, latent, chunk: int | None = None):
    """latent f[B,t,h,w,C], not normalised -> video f[B,T,H,W,3], clamped to [-1,1]."""
    return jnp.clip(_run(Decoder(config), params["decoder"], latent, chunk), -1, 1)


def normalised(latent, config: VAEConfig):
    """(z - mean) / std by channel, in float32: what a denoiser works on."""
    return (latent.astype(jnp.float32) - jnp.array(config.mean)) / jnp.array(config.std)


def denormalised(latent, config: VAEConfig):
    """The inverse of `normalised`, in float32."""
    return latent.astype(jnp.float32) * jnp.array(config.std) + jnp.array(config.mean)


def _run(module: Any, params, x, chunk: int | None):
    """The first frame alone, then a scan over chunks of frames; or all in one call."""
    x = layout.video(x)
    if chunk is None or x.shape[1] == 1:
        return module.apply({"params": params}, x)

    def call(past, part):
        y, past = module.apply({"params": params, **past}, part, mutable=["past"])
        return past, y

    past, first = call({}, x[:, :1])
    rest = x.shape[1] - 1
    count = -(-rest // chunk)
    # What is behind the end changes nothing before it.
    parts = jnp.pad(x[:, 1:], [(0, 0), (0, count * chunk - rest)] + [(0, 0)] * 3)
    parts = rearrange(parts, "b (n t) h w c -> n b t h w c", t=chunk)
    _, y = jax.lax.scan(call, past, parts)
    y = rearrange(y, "n b t h w c -> b (n t) h w c")
    return jnp.concatenate([first, y[:, : rest * y.shape[1] // (count * chunk)]], 1)


class Encoder(nn.Module):
    config: VAEConfig

    @nn.compact
    def __call__(self, x):
        """f[B,T,H,W,3] -> f[B,t,h,w,2C]: mean and log variance."""
        config = self.config
        last = len(config.multipliers) - 1
        x = CausalConv(config.base, name="conv_in")(x)
        for level, multiplier in enumerate(config.multipliers):
            width = config.base * multiplier
            for block in range(config.blocks):
                x = Residual(width, name=f"level{level}_block{block}")(x)
            if level < last:
                # One row and column of zeros at the end, as the stride leaves them over.
                down = Conv(width, (1, 3, 3), (1, 2, 2), (0, 1), name=f"level{level}_down")
                x = down(x)
                if config.temporal[level]:
                    x = HalveTime(width, name=f"level{level}_time")(x)
        x = Middle(name="middle")(x)
        x = CausalConv(2 * config.latent, name="conv_out")(
            nn.silu(Norm(name="norm_out")(x))
        )
        return Conv(2 * config.latent, name="quant")(x)


class Decoder(nn.Module):
    config: VAEConfig

    @nn.compact
    def __call__(self, z):
        """f[B,t,h,w,C] -> f[B,T,H,W,3]."""
        config = self.config
        last = len(config.multipliers) - 1
        z = Conv(config.latent, name="quant")(z)
        x = CausalConv(config.base * config.multipliers[-1], name="conv_in")(z)
        x = Middle(name="middle")(x)
        for level in range(last, -1, -1):
            width = config.base * config.multipliers[level]
            for block in range(config.blocks + 1):
                x = Residual(width, name=f"level{level}_block{block}")(x)
            if level > 0:
                if config.temporal[level - 1]:
                    x = DoubleTime(2 * width, name=f"level{level}_time")(x)
                x = jnp.repeat(jnp.repeat(x, 2, 2), 2, 3)
                x = Conv(width // 2, (1, 3, 3), pad=(1, 1), name=f"level{level}_up")(x)
        x = nn.silu(Norm(name="norm_out")(x))
        return CausalConv(3, name="conv_out")(x)


class Middle(nn.Module):
    """At the coarsest resolution: residual block, attention within each frame, block."""

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        x = Residual(width, name="block0")(x)
        x = x + FrameAttention(name="attention")(x)
        return Residual(width, name="block1")(x)


class Residual(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        y = CausalConv(self.features, name="conv1")(nn.silu(Norm(name="norm1")(x)))
        y = CausalConv(self.features, name="conv2")(nn.silu(Norm(name="norm2")(y)))
        if x.shape[-1] != self.features:
            x = Conv(self.features, name="shortcut")(x)
        return layout.video(x + y)


class FrameAttention(nn.Module):
    """One head over all cells of a frame. Frame after frame, so that one score matrix
    f[hw,hw] is held at a time: 10,800 cells a frame at 480 x 1440 pixels."""

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        qkv = Conv(3 * width, name="qkv")(Norm(name="norm")(x))
        tokens = rearrange(qkv, "b t h w (p c) -> t p b (h w) 1 c", p=3)
        y = jax.lax.map(lambda frame: jax.nn.dot_product_attention(*frame), tokens)
        y = rearrange(y, "t b (h w) 1 c -> b t h w c", h=x.shape[2])
        return Conv(width, name="out")(y)


class Norm(nn.Module):
    """x sqrt(C) / |x| * scale over channels, in float32."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        y = x.astype(jnp.float32)
        length = jnp.linalg.norm(y, axis=-1, keepdims=True)
        y = y / jnp.maximum(length, 1e-12) * x.shape[-1] ** 0.5
        return (y * scale).astype(x.dtype)


class Conv(nn.Module):
    """Convolution over (t, h, w), unpadded in time. kernel f[t,h,w,I,O], bias f[O]."""

    features: int
    kernel: tuple[int, int, int] = (1, 1, 1)
    stride: tuple[int, int, int] = (1, 1, 1)
    pad: tuple[int, int] = (0, 0)  # before and after, rows and columns alike

    @nn.compact
    def __call__(self, x):
        shape = (*self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.zeros, shape)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:])
        padding = ((0, 0), self.pad, self.pad)
        letters = ("NDHWC", "DHWIO", "NDHWC")
        y = jax.lax.conv_general_dilated(
            x, kernel, self.stride, padding, dimension_numbers=letters
        )
        return y + bias


class CausalConv(Conv):
    """A frame sees itself and the two before it."""

    kernel: tuple[int, int, int] = (3, 3, 3)
    pad: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, x):
        return super().__call__(_with_past(self, x))


class HalveTime(Conv):
    """Two frames to one, from the three that end there; a clip's first frame stays."""

    kernel: tuple[int, int, int] = (3, 1, 1)
    stride: tuple[int, int, int] = (2, 1, 1)

    @nn.compact
    def __call__(self, x):
        past = self.get_variable("past", "frames")
        if self.is_mutable_collection("past"):
            self.put_variable("past", "frames", x[:, -1:])
        if past is None:
            return jnp.concatenate([x[:, :1], super().__call__(x)], 1)
        return super().__call__(jnp.concatenate([past, x], 1))


class DoubleTime(Conv):
    """One frame to two, causally; a clip's first frame stays, and later ones do not see it.
    `features` is twice the channels: the two halves are the even and the odd frames."""

    kernel: tuple[int, int, int] = (3, 1, 1)

    @nn.compact
    def __call__(self, x):
        kept = 0 if self.has_variable("past", "frames") else 1
        y = super().__call__(_with_past(self, x[:, kept:]))
        y = rearrange(y, "b t h w (r c) -> b (t r) h w c", r=2)
        return jnp.concatenate([x[:, :kept], y], 1)


def _with_past(module: Conv, x):
    """x and the two frames before it: the last chunk's, or zeros at the start of a clip."""
    past = module.get_variable("past", "frames")
    if past is None:
        past = jnp.zeros((x.shape[0], 2, *x.shape[2:]), x.dtype)
    x = jnp.concatenate([past, x], 1)
    if module.is_mutable_collection("past"):
        module.put_variable("past", "frames", x[:, -2:])
    return x
