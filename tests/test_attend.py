"""Attention: the plain formula in float64, its gradient, its memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w4d_jax.nets import chunked as module
from w4d_jax.nets.attend import attend
from w4d_jax.nets.splash import block


def draw(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def plain(q, k, v):
    """The definition, in float64."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    scores = np.einsum("blnk,bsnk->bnls", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bnls,bsnk->blnk", weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize("scores", [2**22, 200], ids=["whole", "runs"])
def test_equals_its_definition_and_the_gradient_of_jax(monkeypatch, scores):
    monkeypatch.setattr(module, "SCORES", scores)
    q, k, v, w = draw((2, 37, 3, 8), 0), draw((2, 20, 3, 8), 1), draw((2, 20, 3, 8), 2), 5.0
    q = w * q  # sharp: some weights near one
    np.testing.assert_allclose(attend(q, k, v), plain(q, k, v), atol=2e-6)

    def loss(f):
        return jax.grad(lambda *a: (f(*a) ** 2).sum(), (0, 1, 2))(q, k, v)

    theirs = loss(jax.nn.dot_product_attention)
    for ours, want in zip(loss(attend), theirs, strict=True):
        np.testing.assert_allclose(ours, want, rtol=1e-4, atol=1e-4)


def test_large_scores_do_not_overflow():
    q = 1e3 * draw((1, 5, 1, 4), 0)
    assert np.isfinite(attend(q, q, q)).all()


def test_memory_grows_with_the_length_and_not_its_square():
    def bytes_held(length):
        x = jax.ShapeDtypeStruct((1, length, 1, 16), jnp.float32)
        step = jax.jit(jax.grad(lambda q, k, v: attend(q, k, v).sum(), (0, 1, 2)))
        return step.lower(x, x, x).compile().memory_analysis().temp_size_in_bytes

    assert bytes_held(32768) < 0.1 * 4 * 32768**2
    assert bytes_held(32768) < 2 * bytes_held(16384)


def test_half_precision_keeps_its_dtype_and_float32_weights():
    q, k, v = (draw((1, 64, 2, 16), i) for i in range(3))
    half = attend(*(jnp.asarray(a, jnp.bfloat16) for a in (q, k, v)))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), plain(q, k, v), atol=0.03)


@pytest.mark.parametrize(
    ("tokens", "vector", "size"),
    [(35_100, 256, 640), (1_787, 256, 896), (1_787, 1024, 512), (100, 1024, 128)],
)
def test_blocks_of_wide_heads_fit_the_vector_memory(tokens, vector, size):
    assert block(tokens, vector) == size
