"""WristWorld's head: where a camera is that sees none of the images (arXiv 2510.07313)."""

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn

from w4d_jax.nets.ops import LayerNorm, Linear
from w4d_jax.nets.vggt.block import MLP, Attention, repeat
from w4d_jax.nets.vggt.config import BlockConfig, WristConfig
from w4d_jax.nets.vggt.refine import Refine


class WristHead(nn.Module):
    """All tokens of all views f[B,V,P,D] -> pose encodings f32[I,B,9] of the wrist camera.

    They come in no order: what a token knows of its place, it knows from the aggregator.
    Dropout acts where a key `dropout` is given.
    """

    config: WristConfig
    width: int

    def setup(self):
        self.gather = Row(self.width) if self.config.views else Gather(self.config)
        self.refine = Refine(self.config.pose, self.width)

    def __call__(self, tokens):
        return self.refine(self.gather(tokens))[:, :, 0]


class Gather(nn.Module):
    """Tokens f[B,V,P,D] -> one f32[B,1,D]: a learned query that has looked at them all."""

    config: WristConfig

    @nn.compact
    def __call__(self, tokens):
        tokens = rearrange(tokens, "b v p d -> b (v p) d")
        shape = (1, tokens.shape[-1])
        query = self.param("query", nn.initializers.normal(1e-6), shape, jnp.float32)
        query = jnp.broadcast_to(query, (len(tokens), *shape))
        x = jnp.concatenate([query, tokens], 1)
        x = repeat(Layer(self.config, name="layers"), self.config.layers - 1, x)
        # Of the last layer only the query is ever read.
        return Layer(self.config, name="last")(x, x[:, :1])


class Row(nn.Module):
    """Tokens f[B,V,P,D] -> one f32[B,1,D]: a linear map of all of them in a row."""

    width: int

    @nn.compact
    def __call__(self, tokens):
        row = rearrange(tokens, "b v p d -> b 1 (v p d)")
        return Linear(self.width, name="map")(LayerNorm(1e-5, name="norm")(row))


class Layer(nn.Module):
    """Norms after each sum: x f[B,L,D] looks at all of context f[B,S,D], or of itself.

    The reference drops attention weights and hidden units as well.
    """

    config: WristConfig

    @nn.compact
    def __call__(self, context, x=None):
        config = self.config
        x = context if x is None else x
        quiet = not self.has_rng("dropout")

        def drop(h, name):
            return nn.Dropout(config.dropout, deterministic=quiet, name=name)(h)

        heads = BlockConfig(config.heads)
        h = Attention(heads, name="attention")(x, context=context)
        x = LayerNorm(1e-5, name="norm1")(x + drop(h, "drop1"))
        h = MLP(4 * x.shape[-1], x.shape[-1], name="mlp")(x)
        return LayerNorm(1e-5, name="norm2")(x + drop(h, "drop2"))
