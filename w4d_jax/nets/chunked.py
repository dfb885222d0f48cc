"""Attention as plain matrix products, in pieces: the form for a CPU, and the ring."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

SCORES = 2**22  # scores held at once: 16 MiB in float32
FEW = 2**12  # scores of a head that is not worth a turn of its own
NEVER = -1e30  # the score of padding; finite, so that a block of nothing else has no NaN


def by_head(q, k, v):
    """softmax(q k' / sqrt(K)) v. q f[B,L,N,K], k v f[B,S,N,K] -> f[B,L,N,K].

    On a CPU 2-D products beat batched ones, and the weights of one head stay in its cache:
    recomputing them in the backward pass (`jax.checkpoint`) is cheaper than reading them
    back from memory. `bench/network.py` compares. Short sequences (a few cameras, a track's
    views) come by the thousand instead: one product has them all.
    """
    if q.shape[1] * k.shape[1] <= FEW:
        scores = jnp.einsum("blnk,bsnk->bnls", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores / math.sqrt(q.shape[-1])).astype(v.dtype)
        return jnp.einsum("bnls,bsnk->blnk", weights, v)
    return _per_head(_weigh, (q,), (k, v))


def _per_head(f, queries, keys):
    """f of one head and one run of queries, for all of them, one after the other.

    queries: arrays f[B,L,N,...], keys: arrays f[B,S,N,...]; f takes their parts f[R,...]
    and f[S,...] and returns arrays f[R,...], here f[B,L,N,...].
    """
    (B, L, N), S = queries[0].shape[:3], keys[0].shape[1]
    runs = math.ceil(L / max(1, SCORES // S))
    rows = math.ceil(L / runs)

    def apart(x):
        return x.swapaxes(1, 2).reshape(B * N, -1, *x.shape[3:])

    def run(x):
        x = jnp.pad(x, [(0, runs * rows - L)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(runs, rows, *x.shape[1:])

    def head(parts):
        queries, keys = parts
        made = jax.lax.map(lambda q: f(*q, *keys), jax.tree.map(run, queries))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:L], made)

    made = jax.lax.map(head, jax.tree.map(apart, (queries, keys)))
    return jax.tree.map(lambda x: x.reshape(B, N, L, *x.shape[2:]).swapaxes(1, 2), made)


def _scores(q, k):
    """q f[R,K], k f[S,K] -> f32[R,S]."""
    scores = jnp.matmul(q, k.T, preferred_element_type=jnp.float32)
    return scores / math.sqrt(q.shape[-1])


@jax.checkpoint
def _weigh(q, k, v):
    """q f[R,K], k v f[S,K] -> f[R,K]; scores and weights in float32."""
    return jax.nn.softmax(_scores(q, k)).astype(v.dtype) @ v


# The ring: each device keeps its queries while keys and values go round ------------------


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def ring(q, k, v, length: int, name: str):
    """`by_head` over a sequence that lies on the mesh axis `seq`; inside `shard_map`.

    q k v f[B,l,N,K]: this device's part of the tokens, of which the first `length` are
    real. Blocks are joined by their log-sum-exp (arXiv 2310.01889).
    """
    return _ring_forward(q, k, v, length, name)[0]


def _ring_forward(q, k, v, length: int, name: str):
    def visit(here, block, real):
        out, total = here
        new, part = _per_head(partial(_alone, real), (q,), block)
        both = jnp.logaddexp(total, part)
        stays, joins = (jnp.exp(x - both)[..., None] for x in (total, part))
        return (stays * out + joins * new, both), block

    nothing = jnp.zeros(q.shape, jnp.float32), jnp.full(q.shape[:3], NEVER, jnp.float32)
    (out, total), _ = _round(visit, nothing, (k, v), length)
    out, total = (checkpoint_name(x, name) for x in (out.astype(q.dtype), total))
    return out, (q, k, v, out, total)


def _ring_backward(length: int, name: str, kept, slope):
    """The sum being known, weights are p = exp(s - total), and a block's part of
    dv = p' do, ds = p (do v' - do o) is what its products p v and p 1 pull back."""
    q, k, v, out, total = kept
    slope = slope.astype(jnp.float32)
    pull = slope, -(slope * out.astype(jnp.float32)).sum(-1)

    def visit(dq, block, real):
        k, v, dk, dv = block

        def products(q, k, v):
            return _per_head(partial(_within, real), (q, total), (k, v))

        parts = jax.vjp(products, q, k, v)[1](pull)
        dq, dk, dv = (a + b for a, b in zip((dq, dk, dv), parts, strict=True))
        return dq, (k, v, dk, dv)

    dq, dk, dv = (jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))
    dq, (_, _, dk, dv) = _round(visit, dq, (k, v, dk, dv), length)
    return tuple(d.astype(x.dtype) for d, x in zip((dq, dk, dv), (q, k, v), strict=True))


ring.defvjp(_ring_forward, _ring_backward)


def _round(visit, here, block, length: int):
    """Every device's block visits every device and comes home -> (here, block).

    visit(here, block, real) -> (here, block), where `real` i32[] of the block's tokens are
    no padding.
    """
    parts, me = jax.lax.axis_size("seq"), jax.lax.axis_index("seq")
    onward = [(i, (i + 1) % parts) for i in range(parts)]

    def step(state, turn):
        here, block = state
        real = length - (me - turn) % parts * block[0].shape[1]
        here, block = visit(here, block, real)
        return (here, jax.lax.ppermute(block, "seq", onward)), None

    return jax.lax.scan(step, (here, block), jnp.arange(parts))[0]


def _real_scores(real, q, k):
    return jnp.where(jnp.arange(len(k)) < real, _scores(q, k), NEVER)


def _alone(real, q, k, v):
    """Attention among the block's keys -> f32[R,K], f32[R] the log of the sum."""
    scores = _real_scores(real, q, k)
    total = jax.nn.logsumexp(scores, -1)
    weights = jnp.exp(scores - total[:, None]).astype(v.dtype)
    return jnp.matmul(weights, v, preferred_element_type=jnp.float32), total


@jax.checkpoint
def _within(real, q, total, k, v):
    """The block's part of attention among all keys -> f32[R,K], f32[R] its weight."""
    weights = jnp.exp(_real_scores(real, q, k) - total[:, None])
    out = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return out, weights.sum(-1)
