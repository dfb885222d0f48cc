"""The image encoder: what enters the first block and the last, and what leaves that."""

from collections.abc import Iterator
from pathlib import Path

from w4d_jax.nets.clip import ClipConfig, ClipVision
from w4d_jax.nets.clip_names import clip_from_torch
from w4d_jax.parity.check import Check, compare
from w4d_jax.parity.golden import jit, last, load


def checks(folder: Path) -> Iterator[Check]:
    z, entry, weights = load(folder, "clip_vision")
    config = clip_config(entry)
    params = {"params": clip_from_torch(config, weights)}
    net = ClipVision(config)

    @jit
    def run(params, pixels):
        tokens, _ = net.apply(params, pixels, method="whole")
        return net.apply(params, pixels, method="embed"), net.apply(params, pixels), tokens

    first, features, tokens = run(params, last(z["pixel_values"]))
    yield compare("hidden_states_0", first, z["hidden_states_0"], 1e-4)
    yield compare("hidden_states_m2", features, z["hidden_states_m2"], 1e-4)
    yield compare("last_hidden_state", tokens, z["last_hidden_state"], 1e-4)


def clip_config(entry: dict) -> ClipConfig:
    """The original constructor's arguments, in our words."""
    return ClipConfig(
        width=entry["hidden_size"],
        heads=entry["num_attention_heads"],
        layers=entry["num_hidden_layers"],
        ffn=entry["intermediate_size"],
        patch=entry["patch_size"],
        side=entry["image_size"],
        eps=entry["layer_norm_eps"],
    )
