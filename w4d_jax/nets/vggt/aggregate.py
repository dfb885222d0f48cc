"""Alternating attention: within a view, then among all views (VGGT, arXiv 2503.11651)."""

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from w4d_jax.nets import layout
from w4d_jax.nets.remat import REMAT
from w4d_jax.nets.vggt.block import Block
from w4d_jax.nets.vggt.config import VGGTConfig
from w4d_jax.nets.vggt.encoder import Encoder
from w4d_jax.types import InputError


class Aggregator(nn.Module):
    """images f[B,V,H,W,3] in [0, 1] -> taps f32[4,B,V,P,2C], of the layers `config.taps`.

    P = 1 + R + hw tokens of a view: camera, registers, patches row by row. The first C
    channels are from attention within the view, the others from attention among views.
    The first view is the frame of reference, and its special tokens are its own; all
    others share theirs, so that their order means nothing.
    """

    config: VGGTConfig

    def setup(self):
        config, tiny = self.config, nn.initializers.normal(1e-6)
        self.encoder = Encoder(config)
        # Of the first view, and of every other.
        self.camera = self.param("camera", tiny, (2, config.width), jnp.float32)
        shape = (2, config.registers, config.width)
        self.register = self.param("register", tiny, shape, jnp.float32)
        self.blocks = Pair(config)

    def __call__(self, images):
        config = self.config
        if images.ndim != 5 or images.shape[-1] != 3:
            raise InputError(f"images of shape {images.shape}: need [B, V, H, W, 3]")
        B, V, H, W, _ = images.shape
        phases = rope(config.grid(H, W), config.width // config.heads, config.special)
        tokens = self.encoder(images.reshape(B * V, H, W, 3))[:, config.special :]
        special = jnp.concatenate([self.camera[:, None], self.register], 1)
        special = jnp.broadcast_to(
            special[np.minimum(np.arange(V), 1)], (B, V, *special.shape[1:])
        )
        x = jnp.concatenate([special, tokens.reshape(B, V, -1, config.width)], 2)

        def step(pair, carry, slot):
            x, taps = carry
            both = visit(pair, checkpoint_name(x, "block"), phases)
            return (both[..., config.width :], taps.at[slot].set(both, mode="drop")), None

        visit = Pair.__call__
        if config.remat != "none":
            visit = nn.remat(visit, prevent_cse=False, policy=REMAT[config.remat])
        loop = nn.scan(
            step, {"params": 0}, split_rngs={"params": True}, length=config.layers
        )
        # Only what is tapped is kept: one slot each, and none for the layers between.
        slots = np.full(config.layers, len(config.taps))
        slots[list(config.taps)] = np.arange(len(config.taps))
        taps = jnp.zeros((len(config.taps), *x.shape[:-1], 2 * config.width), x.dtype)
        return loop(self.blocks, (x, taps), slots)[0][1]


class Pair(nn.Module):
    """One layer: x f32[B,V,P,C] -> f32[B,V,P,2C], after each of its two blocks."""

    config: VGGTConfig

    @nn.compact
    def __call__(self, x, phases):
        B, V = x.shape[:2]
        x = layout.tokens(rearrange(x, "b v p c -> (b v) p c"))
        within = Block(self.config.block, name="frame")(x, phases)
        x = layout.tokens(rearrange(within, "(b v) p c -> b (v p) c", v=V))
        among = Block(self.config.block, name="global")(x, jnp.tile(phases, (1, V, 1)))
        return jnp.concatenate(
            [within.reshape(B, V, -1, x.shape[-1]), among.reshape(B, V, -1, x.shape[-1])],
            -1,
        )


def rope(grid: tuple[int, int], head_dim: int, special: int) -> np.ndarray:
    """Phases f32[2,P,K/2] (cosines, sines) of a view's tokens: patch (i, j) turns by
    (i + 1) and (j + 1) times 100^(-4k/K), k < K/4; special tokens stand at 0."""
    rows, columns = np.indices(grid).reshape(2, -1) + 1
    place = np.zeros((special + len(rows), 2))
    place[special:] = np.stack([rows, columns], -1)
    frequency = 100.0 ** (-4 * np.arange(head_dim // 4) / head_dim)
    angle = (place[:, :, None] * frequency).reshape(len(place), -1)
    return np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
