"""Attention on a TPU: JAX's splash kernel (Pallas), whose scores never leave the core."""

import math
from typing import Any

import jax
import jax.numpy as jnp

LANES = 128


def splash(q, k, v, name: str, interpret: bool = False):
    """softmax(q k' / sqrt(K)) v. q f[B,L,N,K], k v f[B,S,N,K] -> f[B,L,N,K].

    The output and its log-sum-exp carry `name`: a policy that keeps it does not run the
    forward kernel again in the backward pass. interpret: on a CPU, slowly, for tests.
    """
    # Pallas takes a second to import: only a TPU needs it.
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    (_, L, N, K), S = q.shape, k.shape[1]
    vector = -(-K // LANES) * LANES * q.dtype.itemsize
    rows, columns = block(L, vector), block(S, vector)
    q = _heads_first(q / math.sqrt(K), rows)
    k, v = _heads_first(k, columns), _heads_first(v, columns)
    padded = q.shape[2], k.shape[2]
    kernel = kernels.make_splash_mha_single_device(
        kernels.MultiHeadMask([kernels.FullMask(padded)] * N),
        block_sizes=kernels.BlockSizes(
            block_q=rows,
            block_kv=columns,
            block_q_dkv=rows,
            block_kv_dkv=columns,
            block_q_dq=rows,
            block_kv_dq=columns,
        ),
        residual_checkpoint_name=name,
        interpret=interpret,
    )
    real = (jnp.arange(padded[1]) >= S).astype(jnp.int32)  # padding is a segment apart
    segments = kernels.SegmentIds(jnp.zeros(padded[0], jnp.int32), real)
    out: Any = jax.vmap(kernel, in_axes=(0, 0, 0, None))(q, k, v, segments)
    return out[:, :, :L, :K].swapaxes(1, 2)


def block(length: int, vector: int) -> int:
    """The block, a multiple of the lanes, that wastes least: 640 for 35,100 tokens.

    vector: bytes of a token in a head. With more than 128 numbers of 16 bits, blocks above
    512 of the backward kernel do not fit the 16 MiB of a v5e's vector memory.
    """
    most = 1024 if vector <= 2 * LANES else 512
    sizes = range(min(most, -(-length // LANES) * LANES), LANES - 1, -LANES)
    # Below 512 the kernel is slow: only short sequences go there.
    return min((s for s in sizes if s >= min(512, sizes[0])), key=lambda s: -length % s)


def _heads_first(x, rows: int):
    """f[B,L,N,K] -> f[B,N,L',K'], zeros up to whole blocks of rows and lanes."""
    _, L, _, K = x.shape
    widths = ((0, 0), (0, 0), (0, -L % rows), (0, -K % LANES))
    return jnp.pad(x.swapaxes(1, 2), widths)
