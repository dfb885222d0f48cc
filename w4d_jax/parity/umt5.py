"""The text encoder, where the mask says that there is text."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from w4d_jax.nets.text import TextConfig, TextEncoder
from w4d_jax.nets.text_names import text
from w4d_jax.nets.weights import from_torch
from w4d_jax.parity.check import Check, compare
from w4d_jax.parity.golden import jit, load


def checks(folder: Path) -> Iterator[Check]:
    z, entry, weights = load(folder, "umt5")
    config = text_config(entry)
    params = from_torch(text(config), weights)
    encode = jit(TextEncoder(config).apply)
    ids, mask = z["input_ids"], z["attention_mask"]
    ours = encode({"params": params}, ids, mask)
    there = mask > 0
    theirs = z["last_hidden_state"]
    yield compare("last_hidden_state", ours[there], theirs[there], 1e-4)
    yield compare("zero_behind_the_text", ours[~there], 0 * theirs[~there], 0)

    theirs = z["last_hidden_state_first8_nomask"]
    ids = ids[: len(theirs), : theirs.shape[1]]
    ours = encode({"params": params}, ids, np.ones_like(ids))
    yield compare("last_hidden_state_first8_nomask", ours, theirs, 1e-4)


def text_config(entry: dict) -> TextConfig:
    """The original constructor's arguments, in our words."""
    return TextConfig(
        vocabulary=entry["vocab_size"],
        width=entry["d_model"],
        heads=entry["num_heads"],
        head_dim=entry["d_kv"],
        layers=entry["num_layers"],
        ffn=entry["d_ff"],
        buckets=entry["relative_attention_num_buckets"],
        distance=entry["relative_attention_max_distance"],
        eps=entry["layer_norm_epsilon"],
    )
