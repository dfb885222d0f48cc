"""Cameras refined step by step: what the camera head and the wrist head share."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from w4d_jax.nets.ops import LayerNorm, Linear, layer_norm, zeros
from w4d_jax.nets.vggt.block import MLP, Block, repeat
from w4d_jax.nets.vggt.config import PoseConfig


class Refine(nn.Module):
    """tokens f[B,V,D], one a camera -> pose encodings f32[I,B,V,9] (kin/pose.py), one for
    each of I steps, the last the best.

    A step modulates the token p by the encoding s so far, lets all cameras look at each
    other, and adds to s. No gradient passes from one step to the next:

        shift, scale, gate = M silu(E s)
        s <- s + MLP(blocks(p + gate (norm(p) (1 + scale) + shift)))

    s holds the fields of view before the ReLU that an output has.
    """

    config: PoseConfig
    width: int

    def setup(self):
        self.token_norm = LayerNorm(1e-5)
        self.empty = self.param("empty", zeros, (9,), jnp.float32)
        self.embed = Linear(self.width)
        self.modulation = Linear(3 * self.width)
        self.trunk = Block(self.config.block)
        self.trunk_norm = LayerNorm(1e-5)
        self.branch = MLP(self.width // 2, 9)

    def __call__(self, tokens):
        p = self.token_norm(tokens)

        def step(head, total, first):
            total = jax.lax.stop_gradient(total)
            known = head.embed(jnp.where(first, head.empty, total))
            shift, scale, gate = jnp.split(head.modulation(nn.silu(known)), 3, axis=-1)
            y = p + gate * (layer_norm(p, 1e-6) * (1 + scale) + shift)
            y = head.trunk_norm(repeat(head.trunk, head.config.layers, y))
            total = total + head.branch(y)
            return total, total

        loop = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        total = jnp.zeros((*tokens.shape[:2], 9), jnp.float32)
        totals = loop(self, total, jnp.arange(self.config.iterations) == 0)[1]
        return jnp.concatenate([totals[..., :7], nn.relu(totals[..., 7:])], -1)
