"""Low-rank adaptation: algebra, gradients, sizes."""

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.nets import dit, lora
from w4d_jax.nets.kinema4d import (
    ADDED,
    LORA_TARGETS,
    Kinema4D,
    Kinema4DConfig,
    kinema4d_14b,
)


def drawn():
    """Parameters of a small transformer and pairs beside them, nowhere zero."""
    config = dit.DiTConfig(width=12, heads=2, layers=2, ffn=12, frequencies=8, text_dim=6)
    x, text = jnp.zeros((1, 1, 2, 2, 16)), jnp.zeros((1, 2, 6))
    params = jax.eval_shape(dit.Wan(config).init, jax.random.key(0), x, jnp.zeros(1), text)
    params = params["params"]
    pairs = jax.eval_shape(
        lambda p: lora.init(jax.random.key(0), p, 3, LORA_TARGETS), params
    )
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: rng.normal(size=a.shape).astype("f4"), (params, pairs))


def test_merging_is_undone_and_touches_only_what_is_adapted():
    params, pairs = drawn()
    merged = lora.merge(params, pairs, 0.5)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), params, merged)
    paths = {
        "/".join(k.key for k in path) for path, x in jax.tree.leaves_with_path(changed) if x
    }
    assert paths == {
        f"dit/blocks/{a}/{p}/kernel" for a in ("self", "cross") for p in "qkvo"
    }
    back = lora.merge(merged, pairs, -0.5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), back, params)


def test_a_fresh_adapter_changes_nothing_and_only_b_has_a_gradient():
    params = {"q": {"kernel": jnp.ones((2, 4, 3)), "bias": jnp.ones((2, 3))}, "k": {"w": 0}}
    pairs = lora.init(jax.random.key(0), params, 2, "q")
    assert jax.tree.map(jnp.shape, pairs) == {"q": {"a": (2, 4, 2), "b": (2, 2, 3)}}
    assert 0 < jnp.abs(pairs["q"]["a"]).max() <= 0.5
    assert (lora.merge(params, pairs, 1.0)["q"]["kernel"] == params["q"]["kernel"]).all()
    slope = jax.grad(lambda p: (lora.merge(params, p, 1.0)["q"]["kernel"] ** 2).sum())(
        pairs
    )
    assert (slope["q"]["a"] == 0).all() and (slope["q"]["b"] != 0).any()


def test_apart_and_merged_have_the_same_gradient():
    net = dit.Linear(3)
    x = jax.random.normal(jax.random.key(1), (5, 4))
    params = net.init(jax.random.key(0), x)["params"]
    keys = jax.random.split(jax.random.key(2))
    pair = {
        "a": jax.random.normal(keys[0], (4, 2)),
        "b": jax.random.normal(keys[1], (2, 3)),
    }

    def apart(pair):
        scaled = lora.scaled({"m": pair}, 0.5)["m"]
        return (net.apply({"params": params, "lora": scaled}, x) ** 2).sum()

    def merged(pair):
        tree = lora.merge({"m": params}, {"m": pair}, 0.5)["m"]
        return (net.apply({"params": tree}, x) ** 2).sum()

    one, other = jax.grad(apart)(pair), jax.grad(merged)(pair)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), one, other
    )


def test_split_and_join():
    tree = {"a": {"b": 1, "c": 2}, "d": 3, "e": {"f": {"g": 4}}}
    chosen, rest = lora.split(tree, lambda path: path in ("a/b", "e/f/g"))
    assert (chosen, rest) == (
        {"a": {"b": 1}, "e": {"f": {"g": 4}}},
        {"a": {"c": 2}, "d": 3},
    )
    assert lora.join(chosen, rest) == lora.join(rest, chosen) == tree


def test_what_the_paper_trains_has_its_published_size():
    config = Kinema4DConfig(**{**kinema4d_14b(), "variant": "act"})
    x = [jax.ShapeDtypeStruct((1, 13, 60, 180, c), jnp.float32) for c in (16, 20, 20)]
    image = jax.ShapeDtypeStruct((1, 257, 1280), jnp.float32)
    params = jax.eval_shape(
        Kinema4D(config).init, jax.random.key(0), *x, jnp.zeros(1), image
    )
    params = params["params"]
    pairs = jax.eval_shape(
        lambda p: lora.init(jax.random.key(0), p, 64, LORA_TARGETS), params
    )
    added, _ = lora.split(params, lambda path: path.split("/")[0] in ADDED)

    def count(tree):
        return sum(a.size for a in jax.tree.leaves(tree))

    assert count(pairs) == 209_715_200
    assert count(added) == 1_287_568
    assert count(pairs) + count(added) == 211_002_768
