"""The plain Wan transformer: velocities, and every stage on the way to them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.nets import dit, peer_config, wan_names, weights
from w4d_jax.nets.ops import rope
from w4d_jax.parity.check import Check, compare
from w4d_jax.parity.golden import jit, last, load


def checks(folder: Path, name: str) -> Iterator[Check]:
    z, entry, tensors = load(folder, name)
    config = peer_config.wan(entry["transformer"])
    params = weights.from_torch(wan_names.wan(config), tensors)
    x, text = last(z["hidden_states"]), z["text_embedding"]
    image = z["image_embedding"] if config.image_dim else None

    forward = jit(
        lambda time: dit.Wan(config).apply({"params": params}, x, time, text, image)
    )
    whole = z["timestep_int"].astype(np.float32)
    yield compare("velocity", forward(z["timestep"]), last(z["velocity"]), 1e-4)
    yield compare("velocity_int", forward(whole), last(z["velocity_int"]), 1e-4)

    @jit
    def stages(params):
        """Part by part, each with its own parameters."""
        net = params["dit"]
        temb, modulation = dit.TimeEmbedder(config).apply(
            {"params": net["time"]}, z["timestep"]
        )
        context = dit.TextEmbedder(config).apply({"params": params["text"]}, text)
        tokens = image
        if config.image_dim:
            tokens = dit.ImageEmbedder(config).apply({"params": net["image"]}, image)
        embedded = dit.DiT(config).apply({"params": net}, x, method="embed")
        phases = rope(embedded.shape[1:4], config.head_dim)
        embedded = embedded.reshape(len(x), -1, config.width)
        blocks = run_blocks(
            config, net["blocks"], embedded, modulation, phases, context, tokens
        )
        return temb, modulation, context, tokens, embedded, blocks, phases

    temb, modulation, context, tokens, embedded, blocks, phases = stages(params)
    index = z["probe_token_index"]
    yield compare("probe_temb", temb, z["probe_temb"], 5e-5)
    yield compare(
        "probe_timestep_proj",
        modulation.reshape(len(x), -1),
        z["probe_timestep_proj"],
        5e-5,
    )
    some = z["probe_text_tokens"].shape[1]
    yield compare("probe_text_tokens", context[:, :some], z["probe_text_tokens"], 5e-5)
    if config.image_dim:
        yield compare("probe_image_tokens", tokens, z["probe_image_tokens"], 5e-5)
    yield from compare_phases(phases, z)
    yield compare("probe_embed", embedded[:, index], z["probe_embed"], 5e-5)
    for i, block in enumerate(blocks):
        key = f"probe_block_{i}"
        yield compare(key, block[:, index], z[key], 1e-4)


def run_blocks(config: dit.DiTConfig, blocks, x, modulation, phases, context, image) -> Any:
    """The output f[I,B,L,D] of each block, given the first one's input f[B,L,D]."""
    phases = jnp.asarray(phases).reshape(2, x.shape[1], -1)

    def step(x, block):
        x = dit.Block(config).apply(
            {"params": block}, x, modulation, phases, context, image
        )
        return x, x

    return jax.lax.scan(step, x, blocks)[1]


def compare_phases(phases, z) -> Iterator[Check]:
    """phases f[2,t,h,w,K/2]: cosines, then sines."""
    for name, ours in zip(("rope_cos", "rope_sin"), phases, strict=True):
        yield compare(name, ours.reshape(z[name].shape), z[name], 1e-6)
