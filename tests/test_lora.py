"""Low-rank adaptation: the reference's merge and forwards, algebra, sizes."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import close, last

from w4d_jax.nets import dit, lora, weights
from w4d_jax.nets.kinema4d import (
    ADDED,
    LORA_TARGETS,
    Kinema4D,
    Kinema4DConfig,
    kinema4d_14b,
)
from w4d_jax.types import InputError


@pytest.fixture(scope="module")
def case():
    """Base parameters, pairs, and their golden arrays."""
    if not golden.GOLDEN.exists():
        pytest.skip("golden files are not here")
    arrays, entry, tensors = golden.load("wan_i2v")
    config = golden.dit_config(entry["transformer"])
    params = weights.from_torch(weights.wan(config), tensors)
    adapter = golden.load("lora")
    pairs = weights.from_torch(weights.lora(config), adapter.weights)
    return config, params, pairs, arrays, adapter


def test_merge_and_both_forwards_are_the_reference(case):
    config, params, pairs, z, adapter = case
    scale = adapter.config["scale"]
    merged = lora.merge(params, pairs, scale)
    named = weights.to_torch(weights.wan(config), merged)
    keys = [key for key in adapter.arrays if key.startswith("merged/")]
    assert len(keys) == 16
    for key in keys:
        close(named[key.removeprefix("merged/")], adapter.arrays[key], 1e-6)

    forward = golden.jit(lambda variables: dit.Wan(config).apply(
        variables, last(z["hidden_states"]), z["timestep"], z["text_embedding"],
        z["image_embedding"],
    ))  # fmt: skip
    close(forward({"params": merged}), last(adapter.arrays["velocity_merged"]), 1e-4)
    apart = {"params": params, "lora": lora.scaled(pairs, scale)}
    close(forward(apart), last(adapter.arrays["velocity_unmerged"]), 1e-4)
    assert np.abs(forward(apart) - last(z["velocity"])).max() > 1e-2


def test_merging_is_undone_and_touches_only_what_is_adapted(case):
    _, params, pairs, _, _ = case
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


def test_names_are_total_both_ways(case):
    config, _, pairs, _, adapter = case
    table = weights.lora(config)
    back = weights.to_torch(table, pairs)
    assert back.keys() == adapter.weights.keys()
    for key, value in adapter.weights.items():
        np.testing.assert_array_equal(back[key], value)
    with pytest.raises(InputError, match="unknown"):
        weights.from_torch(
            table, {**adapter.weights, "transformer.proj_out.alpha": np.ones(1)}
        )


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
