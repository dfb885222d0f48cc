"""WristWorld's second stage: a wrist video from its condition map and the anchor views.

The Wan2.1 transformer with two additions (arXiv 2510.07313). The latent of the condition
map stands beside the noisy latent, channel by channel. One feature vector per anchor frame
(CLIP's class token in the reference) becomes a context token that knows its time and its
view; these tokens replace the last of the text rows, which a short prompt leaves empty.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from w4d_jax.nets.dit import DiT, DiTConfig, TextEmbedder, wan_1_3b
from w4d_jax.nets.grid import latent_shape
from w4d_jax.nets.ops import Linear
from w4d_jax.types import InputError

# What the paper trains: low-rank pairs on these modules, and these subtrees in full.
LORA_TARGETS = r"dit/blocks/((self|cross)/[qkvo]|ffn_(in|out))"
ADDED = ("views", "dit/patch")


@dataclasses.dataclass(frozen=True)
class WristWorldConfig:
    """The defaults are the reference's, of which `dropout` acts in training alone."""

    dit: DiTConfig
    feature_dim: int = 1280  # of an anchor frame's feature
    hidden: int = 2048
    views: int = 2
    frames: int = 200  # rows of the time embedding
    dropout: float = 0.0  # the reference: 0.1

    def __post_init__(self):
        if self.dit.in_channels <= self.dit.out_channels:
            raise InputError(
                f"in_channels={self.dit.in_channels}: need more than out_channels="
                f"{self.dit.out_channels}, to hold the condition map beside the noise"
            )
        if not 1 <= self.views <= 6:
            raise InputError(f"views={self.views}: need 1 to 6 anchor views")


def wristworld_1b() -> dict:
    """The paper's model: Wan2.1-T2V-1.3B, 1,419,095,104 parameters with its 32 channels."""
    return {"dit": DiTConfig(in_channels=32, **wan_1_3b()), "dropout": 0.1}


class WristWorld(nn.Module):
    """The velocity (or whatever it is trained for) of a wrist video's latent.

    noisy f[B,t,h,w,C], condition f[B,t,h,w,C+M] (the map's latent, then its validity in M
    channels, 0 in the reference), time f[B] in 0..1000, text f[B,S,text_dim], zero-padded
    (Wan masks no padding), features f[B,V,T,F] of the anchor frames -> f32[B,t,h,w,C].
    seen f[B]: 0 leaves the text as it is and the anchors out; None: all are seen.
    """

    config: WristWorldConfig

    def setup(self):
        self.text = TextEmbedder(self.config.dit)
        self.dit = DiT(self.config.dit)
        self.views = ViewTokens(self.config)

    def __call__(self, noisy, condition, time, text, features, seen=None):
        x = jnp.concatenate([noisy, condition.astype(noisy.dtype)], -1)
        return self.dit(x, time, self.text(self.context(text, features, seen)))

    def context(self, text, features, seen=None):
        """The text, its last V T rows replaced by view tokens: f[B,S,text_dim]."""
        tokens = self.views(features)
        kept = text.shape[1] - tokens.shape[1]
        if kept < 0:
            _, views, frames, _ = features.shape
            raise InputError(
                f"{views} views x {frames} frames: {tokens.shape[1]} tokens, the context "
                f"has {text.shape[1]} rows; take fewer views or frames"
            )
        fused = jnp.concatenate([text[:, :kept], tokens.astype(text.dtype)], 1)
        return fused if seen is None else jnp.where(seen[:, None, None] > 0, fused, text)


class ViewTokens(nn.Module):
    """features f[B,V,T,F] -> f32[B,VT,text_dim], all frames of view 0, then of view 1, ...

    Linear(gelu(Linear(feature + time + view))).
    """

    config: WristWorldConfig

    @nn.compact
    def __call__(self, features):
        config = self.config
        B, V, T, F = features.shape
        if config.views < V or config.frames < T or config.feature_dim != F:
            raise InputError(
                f"anchor features of {V} views, {T} frames, width {F}: the model takes up "
                f"to {config.views} views, {config.frames} frames, width "
                f"{config.feature_dim}"
            )
        small = nn.initializers.normal(0.02)
        time = self.param("time", small, (config.frames, F), jnp.float32)
        view = self.param("view", small, (config.views, F), jnp.float32)
        x = features.astype(jnp.float32) + time[:T] + view[:V, None]
        x = nn.gelu(Linear(config.hidden, name="in")(x), approximate=False)
        x = nn.Dropout(config.dropout, deterministic=not self.has_rng("dropout"))(x)
        return Linear(config.dit.text_dim, name="out")(x).reshape(B, V * T, -1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """What stands for an image encoder (nets/clip.py) at small sizes: the image itself in
    [-1, 1], filtered down to side x side pixels, as one token."""

    side: int = dataclasses.field(metadata={"static": True})

    def init(self, key) -> "Thumbnail":
        return self

    def __call__(self, images):
        """u8[B,H,W,3] -> f32[B,1,3 side^2]."""
        shape = len(images), self.side, self.side, 3
        small = jax.image.resize(images.astype(jnp.float32), shape, "linear")
        return small.reshape(len(images), 1, -1) / 127.5 - 1


def widened(key, kernel, channels: int, std: float = 0.0):
    """A patch embedding f[p,q,r,C,D] that takes `channels` more, behind the others.

    Their weights are N(0, std): zero, so that a pretrained model starts as it was; the
    reference's 0.02 disturbs it.
    """
    shape = (*kernel.shape[:3], channels, kernel.shape[4])
    new = std * jax.random.normal(key, shape, kernel.dtype)
    return jnp.concatenate([kernel, new], axis=3)


def coverage(valid, stride: tuple[int, int, int]):
    """bool[B,T,H,W] -> f32[B,t,h,w,M]: the share of a cell's pixels that are valid, one
    channel for each video frame of the latent frame; frame 0 is alone and counts in all."""
    p, q, r = stride
    frames, height, width = valid.shape[1:]
    t, h, w = latent_shape(frames, height, width, stride)
    share = valid.astype(jnp.float32).reshape(len(valid), -1, h, q, w, r).mean((3, 5))
    share = jnp.concatenate([jnp.repeat(share[:, :1], p, 1), share[:, 1:]], 1)
    return jnp.moveaxis(share.reshape(len(valid), t, p, h, w), 2, -1)
