"""The tracker's transformer: tracks look along themselves, and at each other through a few
virtual tracks, so that its cost grows with their number and not with its square."""

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn

from w4d_jax.nets.ops import LayerNorm, Linear
from w4d_jax.nets.vggt.block import MLP, Attention, repeat
from w4d_jax.nets.vggt.config import BlockConfig, TrackConfig


class Update(nn.Module):
    """tracks f[B,N,V,I] -> f32[B,N,V,O]."""

    config: TrackConfig
    features: int  # O

    @nn.compact
    def __call__(self, tracks):
        config = self.config
        start = Linear(config.width, name="in")(LayerNorm(1e-5, name="norm_in")(tracks))
        shape = (config.virtual, 1, config.width)
        virtual = self.param("virtual", nn.initializers.normal(1.0), shape, jnp.float32)
        B, N, V, D = start.shape
        virtual = jnp.broadcast_to(virtual, (B, config.virtual, V, D))
        x = jnp.concatenate([start, virtual], 1)
        x = repeat(Layer(config, name="layers"), config.layers, x)
        x = LayerNorm(1e-5, name="norm_out")(x[:, :N] + start)
        small = nn.initializers.truncated_normal(0.001)
        return Linear(self.features, name="out", kernel_init=small)(x)


class Layer(nn.Module):
    """x f[B,N+M,V,D], the M virtual tracks last -> the same."""

    config: TrackConfig

    @nn.compact
    def __call__(self, x):
        M, (B, _, V, _) = self.config.virtual, x.shape

        def look(name):
            return Look(BlockConfig(self.config.heads), name=name)

        x = look("time")(rearrange(x, "b n v d -> (b n) v d"))
        x = rearrange(x, "(b n) v d -> (b v) n d", b=B)
        points, virtual = x[:, :-M], x[:, -M:]
        virtual = look("virtual_from_points")(virtual, points)
        virtual = look("virtual")(virtual)
        points = look("points_from_virtual")(points, virtual)
        x = jnp.concatenate([points, virtual], 1)
        return rearrange(x, "(b v) n d -> b n v d", v=V)


class Look(nn.Module):
    """x f[B,L,D] looks at context f[B,S,D], or at itself. What is looked up is added to the
    normed x, as the reference has it, and not to x."""

    config: BlockConfig

    @nn.compact
    def __call__(self, x, context=None):
        x = LayerNorm(1e-5, name="norm1")(x)
        if context is not None:
            context = LayerNorm(1e-5, name="norm_context")(context)
        x = x + Attention(self.config, name="attention")(x, context=context)
        h = LayerNorm(1e-5, name="norm2")(x)
        return x + MLP(4 * x.shape[-1], x.shape[-1], name="mlp")(h)
