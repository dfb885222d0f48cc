"""Wan2.1's video diffusion transformer, text-to-video and image-to-video, at any size.

Numbers: the 14B image-to-video model is `DiTConfig(**wan_14b_i2v())`, 16,394,878,784
parameters with its text embedder; the 1.3B text-to-video model 1,418,996,800.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from w4d_jax.nets import layout
from w4d_jax.nets.attend import attend
from w4d_jax.nets.ops import (
    LayerNorm,
    Linear,
    PatchLinear,
    RMSNorm,
    layer_norm,
    rope,
    rotate,
    sinusoid,
    unpatchify,
    zeros,
)
from w4d_jax.nets.remat import REMAT
from w4d_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Sizes of the transformer. Norms, modulation, rotations, time embedding and residual
    sums are float32 whatever `dtype` (products, residual stream) and `param_dtype` are."""

    in_channels: int = 16
    out_channels: int = 16
    width: int = 1536
    heads: int = 12
    layers: int = 30
    ffn: int = 8960
    patch: tuple[int, int, int] = (1, 2, 2)
    frequencies: int = 256  # of the time sinusoid
    text_dim: int = 4096
    image_dim: int = 0  # 0: no image tokens and no weights for them
    eps: float = 1e-6
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"  # or a name of REMAT

    def __post_init__(self):
        object.__setattr__(self, "patch", tuple(self.patch))
        if self.width % self.heads or self.head_dim % 2:
            raise InputError(
                f"width={self.width}, heads={self.heads}: need a width that is a multiple "
                f"of {2 * self.heads}"
            )
        if self.remat != "none" and self.remat not in REMAT:
            raise InputError(f"remat={self.remat!r}: need none, {', '.join(REMAT)}")

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def linear(self, features: int, name: str, **kwargs) -> Linear:
        return Linear(features, self.dtype, self.param_dtype, name=name, **kwargs)


def wan_1_3b() -> dict:
    """Wan2.1-T2V-1.3B."""
    return {"width": 1536, "heads": 12, "layers": 30, "ffn": 8960}


def wan_14b_i2v() -> dict:
    """Wan2.1-I2V-14B: 16 noisy + 4 mask + 16 condition channels, CLIP ViT-H tokens."""
    return {
        "in_channels": 36,
        "width": 5120,
        "heads": 40,
        "layers": 40,
        "ffn": 13824,
        "image_dim": 1280,
    }


class Wan(nn.Module):
    """The whole of Wan2.1: text embedder and transformer."""

    config: DiTConfig

    def setup(self):
        self.text = TextEmbedder(self.config)
        self.dit = DiT(self.config)

    def __call__(self, x, time, text, image=None):
        """text f[B,S,text_dim] from umT5, zero-padded (Wan masks no padding)."""
        return self.dit(x, time, self.text(text), image)


class DiT(nn.Module):
    """x f[B,T,H,W,C], time f[B] in 0..1000, context f[B,S,D], image f[B,I,image_dim] or
    None -> f32[B,T,H,W,out_channels].

    The context is already of the model's width: text embeddings (`TextEmbedder`), robot or
    view tokens. `embed` and `transform` are its two stages, for models built around it.
    """

    config: DiTConfig

    def setup(self):
        config = self.config
        self.patch = PatchLinear(
            config.width, config.patch, config.dtype, config.param_dtype
        )
        self.time = TimeEmbedder(config)
        self.image = ImageEmbedder(config) if config.image_dim else None
        self.blocks = Block(config)
        self.head = Head(config)

    def __call__(self, x, time, context, image=None):
        tokens = self.embed(x)
        phases = rope(tokens.shape[1:4], self.config.head_dim)
        return self.transform(tokens, phases, time, context, image)

    def embed(self, x):
        """x f[B,T,H,W,C] -> tokens f[B,t,h,w,D]."""
        short = [n % p for n, p in zip(x.shape[1:4], self.config.patch, strict=True)]
        if any(short) or x.shape[-1] != self.config.in_channels:
            raise InputError(
                f"latent of {x.shape[1:]} (frames, rows, columns, channels): need "
                f"multiples of {self.config.patch} and {self.config.in_channels} channels"
            )
        return self.patch(x)

    def transform(self, tokens, phases, time, context, image=None):
        """tokens f[B,t,h,w,D], phases f32[2,t,h,w,K/2], then as `__call__`."""
        B, t, h, w, D = tokens.shape
        length = t * h * w
        x = layout.tokens(layout.padded(tokens.reshape(B, length, D), 1))
        phases = layout.padded(phases.reshape(2, length, -1), 1)
        embedding, modulation = self.time(time)
        modulation = layout.context(modulation)
        context = layout.context(context.astype(x.dtype))
        image = self.embed_image(image)
        x = self._run(x, length, modulation, phases, context, image)
        x = self.head(x, embedding)[:, :length]
        return unpatchify(x.reshape(B, t, h, w, -1), self.config.patch)

    def embed_image(self, image):
        """CLIP tokens f[B,I,image_dim] -> f[B,I,D]; None for a model without them."""
        if (image is None) != (self.image is None):
            have = "no image tokens" if image is None else f"image tokens {image.shape}"
            raise InputError(f"{have}, but image_dim={self.config.image_dim}")
        return None if self.image is None else layout.context(self.image(image))

    def _run(self, x, length: int, *condition):
        """All blocks, as one loop over their stacked weights."""

        def step(block, x, *condition):
            return block(checkpoint_name(x, "block"), *condition, length=length), None

        if self.config.remat != "none":
            step = nn.remat(step, prevent_cse=False, policy=REMAT[self.config.remat])
        loop = nn.scan(
            step,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
            length=self.config.layers,
        )
        return loop(self.blocks, x, *condition)[0]


class Block(nn.Module):
    """One layer. x f[B,L,D], modulation f32[B,6,D], phases f32[2,L,K/2], context f[B,S,D],
    image f[B,I,D] or None -> f[B,L,D]. The first `length` tokens are no padding."""

    config: DiTConfig

    @nn.compact
    def __call__(self, x, modulation, phases, context, image=None, length=None):
        length = x.shape[1] if length is None else length
        config, dtype = self.config, x.dtype
        modulation = modulation + _table(self, 6, config.width)
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation, 6, axis=1)

        h = layer_norm(x, config.eps) * (1 + scale1) + shift1
        h = SelfAttention(config, name="self")(h, phases, length)
        x = (x + gate1 * h).astype(dtype)

        h = LayerNorm(config.eps, name="norm_cross")(x)
        h = CrossAttention(config, name="cross")(h, context, image)
        x = (x + h.astype(jnp.float32)).astype(dtype)

        h = layer_norm(x, config.eps) * (1 + scale2) + shift2
        h = nn.gelu(layout.hidden(config.linear(config.ffn, "ffn_in")(h)))
        h = config.linear(config.width, "ffn_out")(h)
        return layout.tokens((x + gate2 * h).astype(dtype))


class SelfAttention(nn.Module):
    """x f[B,L,D], phases f32[2,L,K/2] -> f[B,L,D]. The norms of q and k span all heads."""

    config: DiTConfig

    @nn.compact
    def __call__(self, x, phases, length: int):
        config = self.config
        q, k, v = (config.linear(config.width, name)(x) for name in "qkv")
        q = RMSNorm(config.eps, name="norm_q")(q)
        k = RMSNorm(config.eps, name="norm_k")(k)
        q, k = (rotate(_heads(a, config), phases).astype(v.dtype) for a in (q, k))
        h = attend(q, k, _heads(v, config), length, "self_attention")
        return config.linear(config.width, "o")(h.reshape(x.shape))


class CrossAttention(nn.Module):
    """x f[B,L,D] looks at context f[B,S,D] and, by its own softmax, at image f[B,I,D]: the
    same queries, separate keys and values, results summed."""

    config: DiTConfig

    @nn.compact
    def __call__(self, x, context, image=None):
        config = self.config
        q = RMSNorm(config.eps, name="norm_q")(config.linear(config.width, "q")(x))
        k, v = (config.linear(config.width, name)(context) for name in "kv")
        k = RMSNorm(config.eps, name="norm_k")(k)
        q, k = q.astype(v.dtype), k.astype(v.dtype)
        h = attend(*(_heads(a, config) for a in (q, k, v)))
        if image is not None:
            k, v = (config.linear(config.width, f"{name}_image")(image) for name in "kv")
            k = RMSNorm(config.eps, name="norm_k_image")(k).astype(v.dtype)
            h = h + attend(*(_heads(a, config) for a in (q, k, v)))
        return config.linear(config.width, "o")(h.reshape(x.shape))


class Head(nn.Module):
    """x f[B,L,D], embedding f32[B,D] -> f32[B,L,pqrC]."""

    config: DiTConfig

    @nn.compact
    def __call__(self, x, embedding):
        config = self.config
        modulation = embedding[:, None] + _table(self, 2, config.width)
        shift, scale = jnp.split(modulation, 2, axis=1)
        x = layer_norm(x, config.eps) * (1 + scale) + shift
        p, q, r = config.patch
        x = config.linear(p * q * r * config.out_channels, "out", kernel_init=zeros)(x)
        return x.astype(jnp.float32)


class TimeEmbedder(nn.Module):
    """time f[B] -> embedding f32[B,D] for the head, modulation f32[B,6,D] for blocks."""

    config: DiTConfig

    @nn.compact
    def __call__(self, time):
        width = self.config.width
        normal = nn.initializers.normal(0.02)
        x = sinusoid(time, self.config.frequencies)
        x = nn.silu(Linear(width, name="in", kernel_init=normal)(x))
        x = Linear(width, name="out", kernel_init=normal)(x)
        modulation = Linear(6 * width, name="modulation")(nn.silu(x))
        return x, modulation.reshape(-1, 6, width)


class ImageEmbedder(nn.Module):
    """CLIP tokens f[B,I,image_dim] -> f[B,I,D]."""

    config: DiTConfig

    @nn.compact
    def __call__(self, x):
        config = self.config
        x = LayerNorm(1e-5, name="norm_in")(x)
        x = nn.gelu(config.linear(config.image_dim, "in")(x), approximate=False)
        x = LayerNorm(1e-5, name="norm_out")(config.linear(config.width, "out")(x))
        return x.astype(config.dtype)


class TextEmbedder(nn.Module):
    """umT5 embeddings f[B,S,text_dim] -> f[B,S,D]."""

    config: DiTConfig

    @nn.compact
    def __call__(self, x):
        normal = nn.initializers.normal(0.02)
        x = nn.gelu(self.config.linear(self.config.width, "in", kernel_init=normal)(x))
        return self.config.linear(self.config.width, "out", kernel_init=normal)(x)


def _heads(x, config: DiTConfig):
    """f[B,L,D] -> f[B,L,N,K]."""
    return x.reshape(*x.shape[:-1], config.heads, config.head_dim)


def _table(module: nn.Module, rows: int, width: int):
    """The learned part of a modulation, f32[rows,D]."""
    normal = nn.initializers.normal(width**-0.5)
    return module.param("modulation", normal, (rows, width), jnp.float32)
