"""Reading of golden files: a model's sizes and weights, inputs and expected outputs.

`X.npz` holds the arrays, `meta` among them; `X.safetensors`, where there is one, weights in
the names and layouts of PyTorch.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from w4d_jax import npz
from w4d_jax.nets.files import read_safetensors
from w4d_jax.types import InputError

# Checks are compilation above all: LLVM need not try hard, and the emitters of fusions give
# it twice the code.
LIGHT = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
jit = partial(jax.jit, compiler_options=LIGHT)


class Arrays(dict[str, np.ndarray]):
    """By name, float16 widened (it only saves space in the file)."""

    def __missing__(self, name: str):
        raise InputError(f"golden file: no array {name}; it holds {', '.join(self)}")


class Golden(NamedTuple):
    arrays: Arrays
    config: dict[str, Any]
    weights: dict[str, np.ndarray]  # empty where no .safetensors belongs to the file


def load(folder: Path, name: str) -> Golden:
    path = folder / f"{name}.npz"
    _, held = npz.load(path, ())
    found, _ = npz.load(path, held)
    try:
        config = json.loads(str(found.pop("meta")))["config"]
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: no meta with a config ({error})") from error
    arrays = Arrays(
        {
            key: value.astype(np.float32) if value.dtype == np.float16 else value
            for key, value in found.items()
        }
    )
    tensors = path.with_suffix(".safetensors")
    return Golden(arrays, config, read_safetensors(tensors) if tensors.exists() else {})


def last(a: np.ndarray) -> np.ndarray:
    """[B,C,...] -> [B,...,C]."""
    return np.moveaxis(a, 1, -1)
