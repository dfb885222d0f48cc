"""Attention: one function, the fastest exact form of each platform."""

import math

import jax
import jax.numpy as jnp

SCORES = 2**22  # scores held at once: 16 MiB in float32


def attend(q, k, v):
    """softmax(q k' / sqrt(K)) v for every head. q f[B,L,N,K], k v f[B,S,N,K] -> f[B,L,N,K].

    Never holds more than `SCORES` scores of a head, forward or backward, so that memory
    grows with L and not with its square. On a GPU in 16 bits this is cuDNN's kernel.
    """
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    if jax.default_backend() == "gpu" and half and q.shape[-1] % 8 == 0:
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    return by_head(q, k, v)


def by_head(q, k, v):
    """`attend`, one head and one run of queries after the other.

    On a CPU 2-D products beat batched ones, and the weights of one head stay in its cache:
    recomputing them in the backward pass (`jax.checkpoint`) is cheaper than reading them
    back from memory. `bench/network.py` compares.
    """
    B, L, N, K = q.shape
    runs = math.ceil(L / max(1, SCORES // k.shape[1]))
    rows = math.ceil(L / runs)

    def head(qkv):
        q, k, v = qkv
        q = jnp.pad(q, ((0, runs * rows - L), (0, 0))).reshape(runs, rows, K)
        return jax.lax.map(lambda q: _weigh(q, k, v), q).reshape(-1, K)[:L]

    heads = [a.swapaxes(1, 2).reshape(B * N, -1, K) for a in (q, k, v)]
    return jax.lax.map(head, heads).reshape(B, N, L, K).swapaxes(1, 2)


@jax.checkpoint
def _weigh(q, k, v):
    """q f[R,K], k v f[S,K] -> f[R,K]; scores and weights in float32."""
    scores = jnp.matmul(q, k.T, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
    return jax.nn.softmax(scores).astype(v.dtype) @ v
