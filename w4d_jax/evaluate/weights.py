"""Pretrained weights that travel as pickles in other packages, read without running code.

A pickle is a program: it may call any function it can name. This reader lets it name the
three things that arrays are made of, and refuses everything else.
"""

import importlib.util
import pickle
from pathlib import Path

import numpy as np

from w4d_jax.types import InputError


def _empty_array(*_):
    """Stands in for NumPy's `_reconstruct`: an array whose state the pickle then sets."""
    return np.empty(0, np.int8)


# A pickle of arrays names exactly these, by the module path of the NumPy that wrote it.
ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads dicts and lists of strings, numbers and NumPy arrays."""

    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, only arrays are read")
        return ALLOWED[module, name]


def read_arrays(path) -> dict:
    """A nested dict of float32 arrays from a pickle; InputError for anything else."""
    try:
        with Path(path).open("rb") as file:
            tree = ArrayUnpickler(file).load()
    # A damaged pickle can end in nearly any of Python's exceptions.
    except Exception as error:
        raise InputError(f"weights {path}: {error or type(error).__name__}") from error
    _check(tree, path)
    return tree


def _check(tree, path) -> None:
    if isinstance(tree, dict):
        for branch in tree.values():
            _check(branch, path)
    elif not isinstance(tree, np.ndarray) or tree.dtype != np.float32:
        kind = getattr(tree, "dtype", type(tree).__name__)
        raise InputError(f"weights {path}: holds {kind}, need float32 arrays")


def package_file(package: str, path: str) -> Path:
    """A file inside an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        name = package.replace("_", "-")
        raise InputError(f"{name} is not installed: pip install 'w4d-jax[metrics]'")
    return Path(spec.submodule_search_locations[0]) / path
