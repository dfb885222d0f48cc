"""Low-rank pairs on the image-to-video model: merged matrices, and both forwards."""

from collections.abc import Iterator
from pathlib import Path

from w4d_jax.nets import dit, lora, peer_config, wan_names, weights
from w4d_jax.parity.check import Check, compare
from w4d_jax.parity.golden import jit, last, load


def checks(folder: Path) -> Iterator[Check]:
    """Reads wan_i2v beside it: the base model and its inputs."""
    z, entry, tensors = load(folder, "lora")
    inputs, base_entry, base_tensors = load(folder, "wan_i2v")
    config, scale = peer_config.wan(base_entry["transformer"]), entry["scale"]
    base = weights.from_torch(wan_names.wan(config), base_tensors)
    pairs = weights.from_torch(wan_names.lora(config), tensors)

    merged = lora.merge(base, pairs, scale)
    named = weights.to_torch(wan_names.wan(config), merged)
    for key in z:
        kind, _, name = key.partition("/")
        if kind == "base":
            yield compare(key, base_tensors[name], z[key], 0)
        if kind == "merged":
            yield compare(key, named[name], z[key], 1e-6)

    forward = jit(
        lambda variables: dit.Wan(config).apply(
            variables,
            last(inputs["hidden_states"]),
            inputs["timestep"],
            inputs["text_embedding"],
            inputs["image_embedding"],
        )
    )
    apart = {"params": base, "lora": lora.scaled(pairs, scale)}
    for name, variables in (
        ("velocity_merged", {"params": merged}),
        ("velocity_unmerged", apart),
    ):
        yield compare(name, forward(variables), last(z[name]), 1e-4)
