"""Leaf maths of the networks: linear maps, norms, rotary phases, time sinusoids, patches.

Precision is decided here and nowhere else: a `Linear` multiplies in its own dtype, norms
and rotations work in float32 and return it.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn

xavier = nn.initializers.xavier_uniform()
zeros = nn.initializers.zeros


class Linear(nn.Module):
    """x f[...,I] -> x W + b f[...,O]; plus x A B where the collection `lora` has a pair.

    kernel f[I,O], bias f[O] (unless use_bias is False), lora a f[I,R], b f[R,O].
    """

    features: int
    dtype: str = "float32"
    param_dtype: str = "float32"
    kernel_init: Callable = xavier
    use_bias: bool = True

    @nn.compact
    def __call__(self, x):
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        x = x.astype(self.dtype)
        y = x @ kernel.astype(self.dtype)
        if self.use_bias:
            bias = self.param("bias", zeros, shape[1:], self.param_dtype)
            y = y + bias.astype(self.dtype)
        if self.has_variable("lora", "a"):
            a, b = (self.get_variable("lora", n).astype(self.dtype) for n in "ab")
            y = y + (x @ a) @ b
        return y


class PatchLinear(nn.Module):
    """Cuts x f[B,T,H,W,C] into patches and maps each: f[B,t,h,w,O]. A convolution whose
    stride is its kernel; kernel f[p,q,r,C,O]."""

    features: int
    patch: tuple[int, int, int]
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        shape = (*self.patch, x.shape[-1], self.features)
        kernel = self.param("kernel", _xavier_flat, shape, self.param_dtype)
        bias = self.param("bias", zeros, shape[-1:], self.param_dtype)
        x = patchify(x.astype(self.dtype), self.patch)
        return x @ kernel.reshape(-1, self.features).astype(self.dtype) + bias.astype(
            self.dtype
        )


class LayerNorm(nn.Module):
    """Affine layer norm over the last axis, in float32."""

    eps: float

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        bias = self.param("bias", zeros, x.shape[-1:], jnp.float32)
        return layer_norm(x, self.eps) * scale + bias


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last axis, in float32."""

    eps: float

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        x = x.astype(jnp.float32)
        return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * scale


def layer_norm(x, eps: float):
    """(x - mean) / std over the last axis, in float32."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + eps)


def rope(grid: tuple[int, int, int], head_dim: int):
    """Rotary phases of a (t, h, w) grid: f32[2,t,h,w,K/2], cosines then sines.

    Position i of an axis with n pairs (`rope_pairs`) turns pair j by i 10000^(-j/n). Built
    in float64, an axis at a time: Wan2.1's tables. A program holds these and not the grid
    of them, which is 18 MB at 35,100 tokens.
    """
    phases = []
    for axis, pairs in enumerate(rope_pairs(head_dim)):
        turn = np.outer(np.arange(grid[axis]), 10000.0 ** (-np.arange(pairs) / pairs))
        shape = [2, 1, 1, 1, pairs]
        shape[1 + axis] = grid[axis]
        table = np.stack([np.cos(turn), np.sin(turn)]).astype(np.float32).reshape(shape)
        phases.append(jnp.broadcast_to(table, (2, *grid, pairs)))
    return jnp.concatenate(phases, -1)


def rope_pairs(head_dim: int) -> tuple[int, int, int]:
    """How many pairs of a head turn with t, h and w."""
    side = head_dim // 6
    return head_dim // 2 - 2 * side, side, side


def rotate(x, phases):
    """Turns the pairs (2j, 2j+1) of x f[B,L,N,K] by phases f32[2,L,K/2]; see `turn`."""
    return turn(x[..., 0::2], x[..., 1::2], phases)


def turn(a, b, phases):
    """Turns the pairs (a, b) f[B,L,N,K/2] by phases f32[2,L,K/2] -> f32[B,L,N,K].

    The result holds all first members, then all second members: queries and keys change
    order alike, which their dot product does not see.
    """
    cos, sin = phases[:, :, None]
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def sinusoid(time, width: int):
    """time f[B] on the scale 0..1000 -> f32[B,width]: cosines, then sines."""
    half = width // 2
    frequency = np.exp(
        np.float32(-math.log(10000)) * np.arange(half, dtype=np.float32) / half
    )
    angle = time.astype(jnp.float32)[:, None] * frequency
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)


def patchify(x, patch: tuple[int, int, int]):
    """f[B,T,H,W,C] -> f[B,t,h,w,pqrC], the channel running fastest."""
    p, q, r = patch
    return rearrange(x, "b (t p) (h q) (w r) c -> b t h w (p q r c)", p=p, q=q, r=r)


def unpatchify(x, patch: tuple[int, int, int]):
    """The inverse of `patchify`."""
    p, q, r = patch
    return rearrange(x, "b t h w (p q r c) -> b (t p) (h q) (w r) c", p=p, q=q, r=r)


def _xavier_flat(key, shape, dtype):
    """Xavier of the matrix that maps a flattened patch, as Wan2.1 initialises it."""
    return xavier(key, (math.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)


def conv3(features: int, name: str, stride: int = 1, bias: bool = True) -> nn.Conv:
    shape = {"kernel_size": (3, 3), "strides": stride, "padding": 1, "use_bias": bias}
    return nn.Conv(features, **shape, kernel_init=xavier, name=name)
