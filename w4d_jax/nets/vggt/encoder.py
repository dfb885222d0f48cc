"""DINOv2's vision transformer with registers (arXiv 2304.07193, 2309.16588)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from w4d_jax.nets.ops import LayerNorm, PatchLinear, zeros
from w4d_jax.nets.vggt.block import Block, repeat
from w4d_jax.nets.vggt.config import VGGTConfig
from w4d_jax.nets.vggt.stem import Stem

# Of ImageNet's pixels in [0, 1].
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


class Encoder(nn.Module):
    """images f[N,H,W,3] in [0, 1] -> tokens f32[N,1+R+hw,C], normed: the class token, the
    registers, the patches row by row."""

    config: VGGTConfig

    def setup(self):
        config, small = self.config, nn.initializers.normal(0.02)
        width = (config.width,)
        self.stem = Stem(config.stem)
        side = config.patch // 2 ** len(config.stem)
        self.patch = PatchLinear(
            config.width, (1, side, side), config.dtype, config.param_dtype
        )
        self.start = self.param("class", small, width, jnp.float32)
        self.register = self.param(
            "register", small, (config.registers, *width), jnp.float32
        )
        table = 1 + config.positions**2, *width
        self.position = self.param("position", waves, table, jnp.float32)
        # Of training by masking; not used here, but files hold it and must come back whole.
        self.mask = self.param("mask", zeros, width, jnp.float32)
        self.blocks = Block(config.encoder_block)
        self.norm = LayerNorm(config.encoder_block.eps)

    def __call__(self, images):
        config = self.config
        N, H, W, _ = images.shape
        grid = config.grid(H, W)
        x = (images - MEAN) / STD
        x = [x, *self.stem(x)][-1]
        x = self.patch(x[:, None]).astype(jnp.float32)
        start = jnp.broadcast_to(self.start, (N, 1, config.width))
        x = jnp.concatenate([start, x.reshape(N, -1, config.width)], 1)
        x = x + resized(self.position, config.positions, grid)
        register = jnp.broadcast_to(self.register, (N, *self.register.shape))
        x = jnp.concatenate([x[:, :1], register, x[:, 1:]], 1)
        return self.norm(repeat(self.blocks, config.encoder_layers, x, remat=config.remat))


def waves(key, shape, dtype):
    """Positions to start from, [1+side^2,C]: sines and cosines of row and column, at wave
    lengths from 2 pi to 200 pi patches; zeros for the class.

    As large as what the patches show, so that a network learns from nothing where things
    are (Beyer et al., arXiv 2205.01580); key is not used.
    """
    rows, width = shape
    side = math.isqrt(rows - 1)
    rate = 100.0 ** -np.linspace(0, 1, width // 4, endpoint=False)
    phase = np.arange(side)[:, None] * rate
    wave = np.concatenate([np.sin(phase), np.cos(phase)], 1)  # [side, C/2]
    patches = np.concatenate([np.repeat(wave, side, 0), np.tile(wave, (side, 1))], 1)
    return jnp.asarray(np.concatenate([np.zeros((1, width)), patches]), dtype)


def resized(position, side: int, grid: tuple[int, int]):
    """Positions f[1+side^2,C] on another grid of patches, f[1+hw,C]; the class keeps its.

    Bicubic with antialiasing, as VGGT resizes them; an equal grid stays as it is.
    """
    width = position.shape[-1]
    patches = position[1:].reshape(side, side, width)
    patches = jax.image.resize(patches, (*grid, width), "bicubic", antialias=True)
    return jnp.concatenate([position[:1], patches.reshape(-1, width)])
