"""CLIP's vision transformer (arXiv 2103.00020): what Wan2.1 knows a first image by.

Wan takes the tokens that enter the last block; that block and the final norm are not run.
They are here because published files hold them, and what is read is written back whole.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from w4d_jax.nets.attend import attend
from w4d_jax.nets.clip_image import cropped
from w4d_jax.nets.ops import LayerNorm, Linear, patchify
from w4d_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """ViT-H/14 of open-clip: 630,766,080 parameters. Norms and the residual stream are
    float32 whatever `dtype` (products) and `param_dtype` are."""

    width: int = 1280
    heads: int = 16
    layers: int = 32
    ffn: int = 5120
    patch: int = 14
    side: int = 224  # of the square image, pixels
    eps: float = 1e-5
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self):
        if self.layers < 2 or self.width % self.heads or self.side % self.patch:
            raise InputError(
                f"clip layers={self.layers}, width={self.width}, heads={self.heads}, "
                f"side={self.side}, patch={self.patch}: need 2 layers or more, and heads "
                "and patch that divide width and side"
            )

    @property
    def tokens(self) -> int:
        return 1 + (self.side // self.patch) ** 2


class ClipVision(nn.Module):
    """pixels f[B,H,W,3], as `clip_image.py` makes them -> f32[B,1+hw,D]: the tokens
    that enter the last block, the class token first."""

    config: ClipConfig

    def setup(self):
        config = self.config
        small = nn.initializers.normal(config.width**-0.5)
        self.patch = Linear(config.width, config.dtype, config.param_dtype, use_bias=False)
        self.start = self.param("class", small, (config.width,), jnp.float32)
        shape = config.tokens, config.width
        self.position = self.param("position", small, shape, jnp.float32)
        self.norm_in = LayerNorm(config.eps)
        self.blocks = Block(config)
        self.last = Block(config)
        self.norm_out = LayerNorm(config.eps)

    def __call__(self, pixels):
        loop = nn.scan(
            lambda block, x: (block(x), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.config.layers - 1,
        )
        return loop(self.blocks, self.embed(pixels))[0]

    def embed(self, pixels):
        """f[B,H,W,3] -> f32[B,1+hw,D]: what enters the first block."""
        side, width = self.config.side, self.config.width
        if pixels.shape[1:] != (side, side, 3):
            raise InputError(f"clip pixels {pixels.shape}: need [B, {side}, {side}, 3]")
        patch = 1, self.config.patch, self.config.patch
        x = self.patch(patchify(pixels[:, None], patch)).reshape(len(pixels), -1, width)
        start = jnp.broadcast_to(self.start, (len(x), 1, width))
        x = jnp.concatenate([start, x.astype(jnp.float32)], 1)
        return self.norm_in(x + self.position)

    def whole(self, pixels):
        """All blocks: (tokens f32[B,1+hw,D], the image's embedding f32[B,D])."""
        x = self.last(self(pixels))
        return x, self.norm_out(x[:, 0])


class Block(nn.Module):
    """One layer. x f32[B,L,D] -> f32[B,L,D]."""

    config: ClipConfig

    @nn.compact
    def __call__(self, x):
        config = self.config

        def linear(features, name):
            return Linear(features, config.dtype, config.param_dtype, name=name)

        h = LayerNorm(config.eps, name="norm_self")(x)
        heads = *x.shape[:2], config.heads, config.width // config.heads
        q, k, v = (linear(config.width, name)(h).reshape(heads) for name in "qkv")
        x = x + linear(config.width, "o")(attend(q, k, v).reshape(x.shape))

        h = LayerNorm(config.eps, name="norm_ffn")(x)
        h = nn.gelu(linear(config.ffn, "ffn_in")(h), approximate=False)
        return x + linear(config.width, "ffn_out")(h)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ImageEncoder:
    """Images -> tokens, a pytree with its weights in it, as codecs are (codec.py)."""

    params: Any = None  # of `ClipVision`; None until `init`
    config: ClipConfig = dataclasses.field(default=ClipConfig(), metadata={"static": True})
    pixels: Callable = dataclasses.field(default=cropped, metadata={"static": True})

    def init(self, key) -> "ImageEncoder":
        """The encoder with weights drawn at random."""
        side = self.config.side
        blank = jnp.zeros((1, side, side, 3))
        variables = ClipVision(self.config).init(key, blank, method="whole")
        return dataclasses.replace(self, params=variables["params"])

    def __call__(self, images):
        """u8[B,H,W,3] -> f32[B,1+hw,D]."""
        pixels = self.pixels(images, self.config.side)
        return ClipVision(self.config).apply({"params": self.params}, pixels)
