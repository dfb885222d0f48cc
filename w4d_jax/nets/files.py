"""Weight files, safetensors above all: arrays and nothing that could run.

What is opened is not read. A file's header says where its arrays lie; each is a `Lazy`,
read when it is asked for, so that a checkpoint may be larger than memory. Writing runs
piece by piece as well.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import load_file

from w4d_jax.nets.lazy import Lazy, as_bytes
from w4d_jax.nets.torch_zip import open_torch
from w4d_jax.types import InputError

# Of a safetensors header.
DTYPES = {
    "F64": np.dtype("f8"),
    "F32": np.dtype("f4"),
    "F16": np.dtype("f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "F8_E4M3": np.dtype(jnp.float8_e4m3fn),
    "F8_E5M2": np.dtype(jnp.float8_e5m2),
    "I64": np.dtype("i8"),
    "I32": np.dtype("i4"),
    "I16": np.dtype("i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
TORCH = (".pt", ".pth", ".bin", ".ckpt")
SHARD = 5 * 10**9  # bytes of one file of a checkpoint, about


def read_safetensors(path) -> dict[str, np.ndarray]:
    """All arrays of a small file by name, in memory."""
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"no readable .safetensors file ({error})") from error


def open_tensors(path: Path) -> dict[str, Lazy]:
    """The arrays of a checkpoint by name: a file (.safetensors, or an archive of PyTorch),
    or a folder with one such file or with an index of many."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file():
        return open_torch(path) if path.suffix in TORCH else open_safetensors(path)
    indices = sorted(path.glob("*.safetensors.index.json"))
    files = sorted(path.glob("*.safetensors"))
    files = files or sorted(p for p in path.iterdir() if p.suffix in TORCH)
    if len(indices) == 1:
        return open_shards(path, indices[0])
    if indices or len(files) != 1:
        names = ", ".join(p.name for p in (indices or files)[:4]) or "none"
        raise InputError(f"{path}: need one weight file or one index, found {names}")
    return open_tensors(files[0])


def open_safetensors(path: Path) -> dict[str, Lazy]:
    """The arrays of one file by name; its header is checked against its length."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            entries = {}
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                part = file.get_slice(name)
                entries[name] = tuple(part.get_shape()), part.get_dtype()
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: no whole .safetensors file ({_line(error)})") from error
    unknown = sorted({dtype for _, dtype in entries.values()} - set(DTYPES))
    if unknown:
        raise InputError(f"{path}: holds {', '.join(unknown)}; need {', '.join(DTYPES)}")
    return {
        name: Lazy(shape, DTYPES[dtype], _reader(path, name))
        for name, (shape, dtype) in entries.items()
    }


def open_shards(folder: Path, index: Path) -> dict[str, Lazy]:
    """The arrays of all files that an index.json names, each where the index says."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(places.values()))
        if any(Path(shard).name != shard for shard in shards):
            raise ValueError("file names with folders in them")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index}: no index of a checkpoint ({_line(error)})") from error
    held = {shard: open_safetensors(folder / shard) for shard in shards}
    listed = {(name, shard) for name, shard in places.items()}
    found = {(name, shard) for shard, tensors in held.items() for name in tensors}
    if listed != found:
        odd = sorted(listed ^ found)[:4]
        raise InputError(
            f"{index}: {len(listed - found)} tensors listed and not there, "
            f"{len(found - listed)} there and not listed ({odd})"
        )
    return {name: held[shard][name] for name, shard in places.items()}


def write_safetensors(path: Path, tensors: Mapping[str, Lazy]) -> None:
    """One file, in the order given, a piece in memory at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            for piece in tensor.pieces():
                file.write(as_bytes(piece))


def write_shards(
    folder: Path, stem: str, tensors: Mapping[str, Lazy], limit: int = SHARD
) -> None:
    """`stem.safetensors`, or more files of about `limit` bytes and their index."""
    shards: list[dict[str, Lazy]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if size + tensor.nbytes > limit and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        write_safetensors(folder / f"{stem}.safetensors", tensors)
        return
    places = {}
    for i, shard in enumerate(shards, 1):
        path = folder / f"{stem}-{i:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(path, shard)
        places |= dict.fromkeys(shard, path.name)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    path = folder / f"{stem}.safetensors.index.json"
    path.write_text(json.dumps(index, indent=1), encoding="utf-8")


def _reader(path: Path, name: str) -> Callable[[tuple], np.ndarray]:
    """Opened anew for each read: a file that stays mapped counts as memory."""

    def read(index):
        try:
            with safetensors.safe_open(path, "numpy") as file:
                return file.get_slice(name)[index] if index else file.get_tensor(name)
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(f"{path}: cannot read {name} ({_line(error)})") from error

    return read


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
