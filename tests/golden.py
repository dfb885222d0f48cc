"""Reading of the golden files: arrays of the original models, weights and outputs."""

import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.kinema4d import Kinema4DConfig

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "kinema4d"
present = pytest.mark.skipif(not GOLDEN.exists(), reason="golden files are not here")

# These tests are compilation above all: tell LLVM not to try hard.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class Golden(NamedTuple):
    arrays: dict[str, np.ndarray]  # float16 widened, [B,C,...] still channels first
    config: dict[str, Any]
    weights: dict[str, np.ndarray]


def load(name: str) -> Golden:
    arrays = dict(np.load(GOLDEN / f"{name}.npz"))
    config = json.loads(str(arrays.pop("meta")))["config"]
    arrays = {
        k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in arrays.items()
    }
    return Golden(arrays, config, load_file(GOLDEN / f"{name}.safetensors"))


def dit_config(entry: dict[str, Any]) -> DiTConfig:
    """The original constructor's arguments, in our words."""
    return DiTConfig(
        in_channels=entry["in_channels"],
        out_channels=entry["out_channels"],
        width=entry["num_attention_heads"] * entry["attention_head_dim"],
        heads=entry["num_attention_heads"],
        layers=entry["num_layers"],
        ffn=entry["ffn_dim"],
        patch=entry["patch_size"],
        frequencies=entry["freq_dim"],
        text_dim=entry["text_dim"],
        image_dim=entry.get("image_dim") or 0,
        eps=entry["eps"],
    )


def kinema4d_config(entry: dict[str, Any]) -> Kinema4DConfig:
    return Kinema4DConfig(
        dit=dit_config(entry["transformer"]),
        variant=entry["variant"],
        robot_width=entry["robot_channels"],
        robot_patch=entry["robot_patch"][1],
        robot_grid=entry["robot_grid"],
    )


def last(a: np.ndarray) -> np.ndarray:
    """[B,C,T,H,W] -> [B,T,H,W,C]."""
    return np.moveaxis(a, 1, -1)


def close(ours, theirs, atol: float) -> None:
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=atol)


def layer(blocks, i: int):
    """The weights of one block out of the stack."""
    return jax.tree.map(lambda a: a[i], blocks)
