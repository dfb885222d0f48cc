"""The transformer layers of VGGT and its heads, and the loop over a stack of them."""

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from w4d_jax.nets.attend import attend
from w4d_jax.nets.ops import LayerNorm, Linear, turn, zeros
from w4d_jax.nets.remat import REMAT
from w4d_jax.nets.vggt.config import BlockConfig

each_xavier = nn.initializers.xavier_uniform(batch_axis=0)


class Block(nn.Module):
    """x f32[B,L,D], phases f32[2,L,K/2] or None -> f32[B,L,D]."""

    config: BlockConfig

    @nn.compact
    def __call__(self, x, phases=None):
        config, width = self.config, x.shape[-1]
        h = Attention(config, name="attention")(
            LayerNorm(config.eps, name="norm1")(x), phases
        )
        x = x + _scale(self, "scale1", width) * h
        h = MLP(4 * width, width, config.dtype, config.param_dtype, name="mlp")(
            LayerNorm(config.eps, name="norm2")(x)
        )
        return x + _scale(self, "scale2", width) * h


class Attention(nn.Module):
    """x f[B,L,D] looks at context f[B,S,D], or at itself without one -> f[B,L,D].

    kernel f[3,D,D] and bias f[3,D] make queries, keys and values. phases f32[2,L,K/2] turn
    queries and keys (`rotate_halves`).
    """

    config: BlockConfig

    @nn.compact
    def __call__(self, x, phases=None, context=None):
        config, width = self.config, x.shape[-1]
        kernel = self.param("kernel", each_xavier, (3, width, width), config.param_dtype)
        bias = self.param("bias", zeros, (3, width), config.param_dtype)

        def project(x, i):
            x, W, b = (a.astype(config.dtype) for a in (x, kernel[i], bias[i]))
            return (x @ W + b).reshape(*x.shape[:-1], config.heads, width // config.heads)

        seen = x if context is None else context
        q, k, v = project(x, 0), project(seen, 1), project(seen, 2)
        if config.qk_norm:
            q = LayerNorm(config.eps, name="norm_q")(q)
            k = LayerNorm(config.eps, name="norm_k")(k)
        if phases is not None:
            q, k = rotate_halves(q, phases), rotate_halves(k, phases)
        q, k = q.astype(v.dtype), k.astype(v.dtype)
        h = attend(q, k, v, name="self_attention").reshape(x.shape)
        return Linear(width, config.dtype, config.param_dtype, name="out")(h)


class MLP(nn.Module):
    """Linear, exact GELU, linear."""

    hidden: int
    features: int
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        x = Linear(self.hidden, self.dtype, self.param_dtype, name="in")(x)
        x = nn.gelu(x, approximate=False)
        return Linear(self.features, self.dtype, self.param_dtype, name="out")(x)


def rotate_halves(x, phases):
    """Turns the pairs (j, K/4 + j) of each half of x f[B,L,N,K] by phases f32[2,L,K/2]:
    the first half by a token's row, the second by its column."""
    a, b, c, d = jnp.split(x, 4, axis=-1)
    return turn(jnp.concatenate([a, c], -1), jnp.concatenate([b, d], -1), phases)


def repeat(block: nn.Module, layers: int, x, *context, remat: str = "none"):
    """x through `layers` of a block, as one loop over their stacked weights."""

    def step(block, x, *context):
        return block(checkpoint_name(x, "block"), *context), None

    if remat != "none":
        step = nn.remat(step, prevent_cse=False, policy=REMAT[remat])
    loop = nn.scan(
        step,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
        length=layers,
    )
    return loop(block, x, *context)[0]


def _scale(module: Block, name: str, width: int):
    """A learned factor for each channel of a residual, f32[D]."""
    start = nn.initializers.constant(module.config.layer_scale)
    return module.param(name, start, (width,), jnp.float32)
