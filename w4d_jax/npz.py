"""Reading .npz files that others made: what was asked for or an InputError; no pickles."""

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from w4d_jax.types import InputError


def read_npz(path, arrays: dict[str, str]) -> dict[str, np.ndarray]:
    """The named arrays of a file, each of the type and shape asked for, and finite.

    arrays: for each a type and its axes, as in {"rgb": "u1 T H W 3", "K": "f 3 3|f T 3 3"};
    a letter stands for one and the same number throughout the file.
    """
    found, held = load(Path(path), arrays)
    missing = [name for name in arrays if name not in found]
    if missing:
        raise InputError(f"{path}: no {', '.join(missing)}; it holds {held}")
    check_arrays(path, found, arrays)
    return found


def check_arrays(path, found: dict[str, np.ndarray], arrays: dict[str, str]) -> None:
    """InputError, in the name of `path`, unless `found` holds what `arrays` describes."""
    sizes: dict[str, tuple[int, str]] = {}
    for name, wanted in arrays.items():
        x = found[name]
        forms = [form.split() for form in wanted.split("|")]
        axes = next((form[1:] for form in forms if _is(x, *form)), None)
        if axes is None:
            raise InputError(
                f"{path}: {name} is {x.dtype.str[1:]} {x.shape}, need {wanted}"
            )
        for axis, size in zip(axes, x.shape, strict=True):
            first, owner = sizes.setdefault(axis, (size, name))
            if size != first:
                raise InputError(f"{path}: {name} has {axis} = {size}, {owner} has {first}")
            if size == 0:
                raise InputError(f"{path}: {name} has {axis} = 0, need 1 or more")
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            at = np.argwhere(~np.isfinite(x))[0].tolist()
            raise InputError(f"{path}: {name} holds NaN or infinity, first at {at}")


def load(path: Path, names: Iterable[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those of the named arrays that a file holds, unchecked; the names of all in it."""
    if path.is_file() and not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not an .npz, or cut short ({path.stat().st_size} bytes)")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names if name in file.files}
            held = file.files
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise InputError(f"{path}: cannot read it ({reason})") from error
    # zipfile, zlib and numpy have a dozen types between them for a damaged file.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: damaged ({reason})") from error
    for name, x in arrays.items():
        if not isinstance(x, np.ndarray):  # numpy gives bytes where no .npy header is
            raise InputError(f"{path}: damaged ({name} is not an array)")
    return arrays, held


def _is(x: np.ndarray, kind: str, *axes: str) -> bool:
    """Whether an array has this type and rank, and these sizes where they are numbers."""
    return (
        x.dtype.str[1:].startswith(kind)
        and x.ndim == len(axes)
        and all(not a.isdigit() or int(a) == n for a, n in zip(axes, x.shape, strict=True))
    )
