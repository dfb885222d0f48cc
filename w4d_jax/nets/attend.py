"""Attention: one function, the fastest exact form of each platform, on any mesh."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from w4d_jax.nets import layout
from w4d_jax.nets.chunked import by_head, ring
from w4d_jax.nets.splash import splash
from w4d_jax.types import InputError


def attend(q, k, v, length: int | None = None, name: str = "attention"):
    """softmax(q k' / sqrt(K)) v for every head. q f[B,L,N,K], k v f[B,S,N,K] -> f[B,L,N,K].

    Memory grows with L and not with its square, forward or backward.

    length: q, k and v are the tokens of one sequence, so many of them real and the rest
    padding (`layout.padded`), and may be spread over the mesh's `seq`. Without it every
    device of an example holds all keys.
    name: of what the backward pass reads again, for policies of rematerialisation.
    """
    if layout.current() is None:
        return _whole(q, k, v, length, name)
    heads = layout.size("tensor")
    if q.shape[2] % heads:
        fit = math.gcd(q.shape[2], heads)
        raise InputError(
            f"heads={q.shape[2]}: need a multiple of mesh.tensor={heads} (try tensor={fit})"
        )
    queries = layout.spec(q.shape, layout.BATCH, "seq", "tensor", None)
    cut = length is not None and queries[1] == "seq" and layout.size("seq") > 1
    keys = queries if cut else P(queries[0], None, "tensor", None)
    return jax.shard_map(
        partial(_spread if cut else _whole, length=length, name=name),
        in_specs=(queries, keys, keys),
        out_specs=queries,
        check_vma=False,  # Pallas kernels do not say what they vary over
    )(q, k, v)


def _spread(q, k, v, length: int, name: str):
    """One device's part of `attend` where the tokens are cut.

    Ulysses (arXiv 2309.14509): all devices of an example trade tokens for heads, so that
    each sees the whole sequence, and trade back. Where there are not heads enough to go
    round, keys and values travel in a ring instead.
    """
    if q.shape[2] % jax.lax.axis_size("seq"):
        return ring(q, k, v, length, name)

    def trade(x, split: int, join: int):
        return jax.lax.all_to_all(x, "seq", split, join, tiled=True)

    q, k, v = (trade(x, 2, 1) for x in (q, k, v))
    return trade(_whole(q, k, v, length, name), 1, 2)


def _whole(q, k, v, length: int | None, name: str):
    """All keys are here: a kernel of the platform does it."""
    k, v = k[:, :length], v[:, :length]
    where, half = layout.platform(), q.dtype in (jnp.bfloat16, jnp.float16)
    if where == "tpu":
        return splash(q, k, v, name)
    if where in ("gpu", "cuda") and half and q.shape[-1] % 8 == 0:
        return cudnn(q, k, v)
    return checkpoint_name(by_head(q, k, v), name)


def cudnn(q, k, v):
    """cuDNN's kernel, whose backward pass takes even lengths alone: one more is masked."""
    (B, L), S = q.shape[:2], k.shape[1]
    q, k, v = (jnp.pad(x, [(0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0)]) for x in (q, k, v))
    lengths = jnp.full(B, S) if S % 2 else None
    out = jax.nn.dot_product_attention(
        q, k, v, key_value_seq_lengths=lengths, implementation="cudnn"
    )
    return out[:, :L]
