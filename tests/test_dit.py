"""The video transformer: invariants, precision, sizes."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import close, jit

from w4d_jax.nets import dit
from w4d_jax.nets.ops import patchify, rope, rotate, unpatchify
from w4d_jax.types import InputError

SMALL = dit.DiTConfig(in_channels=3, out_channels=3, width=24, heads=2, layers=3, ffn=32,
                      frequencies=8, text_dim=6)  # fmt: skip
X = jax.ShapeDtypeStruct((1, 2, 4, 4, 3), jnp.float32)


@cache
def small_params():
    """Random parameters, the zero-initialised head included."""
    x, context = jnp.zeros(X.shape), jnp.zeros((1, 5, 24))
    params = jit(dit.DiT(SMALL).init)(jax.random.key(0), x, jnp.zeros(1), context)
    head = jax.random.normal(
        jax.random.key(1), params["params"]["head"]["out"]["kernel"].shape
    )
    params["params"]["head"]["out"]["kernel"] = 0.1 * head
    return params


def small_inputs(batch=2):
    random = np.random.default_rng(0)
    x = random.normal(size=(batch, 2, 4, 4, 3)).astype(np.float32)
    context = random.normal(size=(batch, 5, 24)).astype(np.float32)
    return x, np.linspace(100, 900, batch).astype(np.float32), context


@pytest.mark.parametrize(
    ("preset", "count"), [(dit.wan_1_3b, 1_418_996_800), (dit.wan_14b_i2v, 16_394_878_784)]
)
def test_published_parameter_counts(preset, count):
    config = dit.DiTConfig(**preset())
    image = jnp.zeros((1, 257, 1280)) if config.image_dim else None
    x = jnp.zeros((1, 1, 2, 2, config.in_channels))
    tree = jax.eval_shape(
        dit.Wan(config).init,
        jax.random.key(0),
        x,
        jnp.zeros(1),
        jnp.zeros((1, 8, 4096)),
        image,
    )
    assert sum(a.size for a in jax.tree.leaves(tree)) == count


def test_patches_come_back_and_rotation_keeps_relative_position():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(unpatchify(patchify(x, (2, 3, 4)), (2, 3, 4)), x)

    q, k = np.random.default_rng(1).normal(size=(2, 1, 1, 1, 12)).astype(np.float32)
    phases = rope((5, 5, 5), 12)

    def score(i, j):
        at = [phases[(slice(None), *p)].reshape(2, 1, -1) for p in (i, j)]
        return float(jnp.sum(rotate(q, at[0]) * rotate(k, at[1])))

    assert score((3, 2, 4), (1, 1, 0)) == pytest.approx(
        score((2, 1, 4), (0, 0, 0)), abs=1e-5
    )
    assert score((3, 2, 4), (1, 1, 0)) != pytest.approx(
        score((3, 2, 4), (1, 1, 1)), abs=1e-3
    )


def test_samples_of_a_batch_do_not_see_each_other():
    x, time, context = small_inputs()
    forward = jit(dit.DiT(SMALL).apply)
    together = forward(small_params(), x, time, context)
    x[1], time[1], context[1] = 7, 3, -1
    close(forward(small_params(), x, time, context)[0], together[0], 1e-6)


def test_bfloat16_products_stay_near_float32():
    """0.007 of the velocity here. Weights stored so cost nothing more: products round them
    anyway, and what must stay float32 is stored in it."""
    x, time, context = small_inputs()
    exact = jit(dit.DiT(SMALL).apply)(small_params(), x, time, context)
    half = dataclasses.replace(SMALL, dtype="bfloat16")
    stored = dataclasses.replace(half, param_dtype="bfloat16")
    shapes = jax.eval_shape(dit.DiT(stored).init, jax.random.key(0), x, time, context)
    weights = jax.tree.map(lambda x, a: x.astype(a.dtype), small_params(), shapes)
    rounded = jit(dit.DiT(half).apply)(small_params(), x, time, context)
    assert rounded.dtype == jnp.float32
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.02
    close(jit(dit.DiT(stored).apply)(weights, x, time, context), rounded, 0)

    tree = shapes["params"]
    assert tree["blocks"]["self"]["q"]["kernel"].dtype == jnp.bfloat16
    for kept in (tree["blocks"]["modulation"], tree["time"]["in"]["kernel"],
                 tree["blocks"]["self"]["norm_q"]["scale"]):  # fmt: skip
        assert kept.dtype == jnp.float32


def test_full_size_training_step_traces_without_weights():
    """14B, bfloat16, every way of keeping activations: shapes only."""
    base = dit.DiTConfig(**dit.wan_14b_i2v(), dtype="bfloat16", param_dtype="bfloat16")
    x = jax.ShapeDtypeStruct((1, 13, 60, 180, 36), jnp.bfloat16)
    rest = (jnp.zeros(1), jax.ShapeDtypeStruct((1, 312, 5120), jnp.bfloat16))
    image = jax.ShapeDtypeStruct((1, 257, 1280), jnp.bfloat16)
    for remat in dit.REMAT:
        net = dit.DiT(dataclasses.replace(base, remat=remat))
        params = jax.eval_shape(net.init, jax.random.key(0), x, *rest, image)
        step = jax.grad(lambda p, *a, net=net: net.apply(p, *a).sum())
        assert jax.tree.map(jnp.shape, jax.eval_shape(step, params, x, *rest, image)) == (
            jax.tree.map(jnp.shape, params)
        )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dit.DiTConfig(width=30, heads=4), "width=30, heads=4"),
        (lambda: dit.DiTConfig(remat="some"), "remat='some'"),
        (lambda: _shapes((1, 2, 5, 4, 3)), r"\(2, 5, 4, 3\).*multiples of \(1, 2, 2\)"),
        (lambda: _shapes((1, 2, 4, 4, 4)), r"3 channels"),
        (lambda: _shapes((1, 2, 4, 4, 3), jnp.zeros((1, 7, 9))), "image_dim=0"),
    ],
)
def test_wrong_sizes_are_one_line(call, words):
    with pytest.raises(InputError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def _shapes(shape, image=None):
    net, context = dit.DiT(SMALL), jnp.zeros((1, 5, 24))
    return jax.eval_shape(
        lambda: net.init(jax.random.key(0), jnp.zeros(shape), jnp.zeros(1), context, image)
    )
