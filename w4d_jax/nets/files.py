"""Weight files: safetensors, which hold arrays and nothing that could run."""

import safetensors
from safetensors.numpy import load_file

from w4d_jax.types import InputError


def read_safetensors(path) -> dict:
    """Tensors by name, as numpy arrays."""
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"no readable .safetensors file ({error})") from error
