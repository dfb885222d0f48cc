"""umT5's encoder: what Wan2.1 reads its prompts with.

A T5 (arXiv 1910.10683) with three turns: every layer has its own table of relative
positions, the feed-forward is gated by tanh-GELU, scores are not scaled by sqrt(K).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from w4d_jax.nets.ops import Linear, RMSNorm

normal = nn.initializers.normal


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """umT5-XXL's own sizes: 5,680,910,336 parameters. Norms, scores and the residual stream
    are float32 whatever `dtype` (products) and `param_dtype` are."""

    vocabulary: int = 256_384
    width: int = 4096
    heads: int = 64
    head_dim: int = 64
    layers: int = 24
    ffn: int = 10_240
    buckets: int = 32  # of relative positions, half of them for each direction
    distance: int = 128  # from here on all positions share the last bucket
    eps: float = 1e-6
    dtype: str = "float32"
    param_dtype: str = "float32"

    def linear(self, features: int, name: str) -> Linear:
        return Linear(features, self.dtype, self.param_dtype, use_bias=False, name=name)


class TextEncoder(nn.Module):
    """ids i32[B,S], mask [B,S] (1 = a token of the text, 0 = padding) -> f32[B,S,D].

    Padding is not looked at, and its rows are zero: what Wan2.1's transformer, which masks
    nothing, expects behind a text shorter than its 512 tokens.
    """

    config: TextConfig

    @nn.compact
    def __call__(self, ids, mask):
        config = self.config
        shape = (config.vocabulary, config.width)
        table = self.param("embedding", normal(1.0), shape, config.param_dtype)
        x = jnp.take(jnp.asarray(table), ids, axis=0).astype(jnp.float32)
        loop = nn.scan(
            lambda block, x, mask: (block(x, mask), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
            length=config.layers,
        )
        x, _ = loop(Block(config, name="blocks"), x, mask)
        return RMSNorm(config.eps, name="norm")(x) * mask[..., None]


class Block(nn.Module):
    """One layer. x f32[B,S,D], mask [B,S] -> f32[B,S,D]."""

    config: TextConfig

    @nn.compact
    def __call__(self, x, mask):
        config = self.config
        h = RMSNorm(config.eps, name="norm_self")(x)
        x = x + SelfAttention(config, name="self")(h, mask)

        h = RMSNorm(config.eps, name="norm_ffn")(x)
        h = nn.gelu(config.linear(config.ffn, "gate")(h)) * config.linear(
            config.ffn, "ffn_in"
        )(h)
        return x + config.linear(config.width, "ffn_out")(h)


class SelfAttention(nn.Module):
    """softmax(q k' + b) v, b by how far and to which side a key stands. x f[B,S,D]."""

    config: TextConfig

    @nn.compact
    def __call__(self, x, mask):
        config = self.config
        B, S, _ = x.shape
        heads = B, S, config.heads, config.head_dim
        width = config.heads * config.head_dim
        q, k, v = (config.linear(width, name)(x).reshape(heads) for name in "qkv")
        shape = (config.buckets, config.heads)
        table = self.param("bias", normal(math.prod(shape) ** -0.5), shape, jnp.float32)
        bias = jnp.asarray(table)[relative_buckets(S, config)]  # [S,S,N]
        h = jax.nn.dot_product_attention(
            q, k, v, bias.transpose(2, 0, 1)[None], mask[:, None, None] > 0, scale=1.0
        )
        return config.linear(config.width, "o")(h.reshape(B, S, width))


def relative_buckets(length: int, config: TextConfig) -> np.ndarray:
    """The bucket of each (query, key), i64[S,S].

    The lower half of the buckets is for keys at or before the query, the upper half for
    those behind it. In a half the nearer part are single distances, the farther part grow
    logarithmically up to `distance`. In float32, as the original decides ties.
    """
    half = config.buckets // 2
    exact = half // 2
    offset = np.arange(length)[None] - np.arange(length)[:, None]
    away = np.abs(offset)
    growth = np.log(np.maximum(away, 1).astype(np.float32) / np.float32(exact))
    growth = growth / np.float32(math.log(config.distance / exact)) * (half - exact)
    far = np.minimum(exact + growth.astype(int), half - 1)
    return np.where(away < exact, away, far) + half * (offset > 0)
