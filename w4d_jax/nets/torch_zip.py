"""PyTorch's .pt and .pth archives, read and written without PyTorch.

An archive holds `data.pkl`, which describes the tensors (`nets/torch_pickle.py` reads it
and runs nothing), and one entry of raw numbers for each storage.
"""

import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from w4d_jax.nets.lazy import Lazy, as_bytes
from w4d_jax.nets.torch_pickle import DTYPES, View, read_pickle
from w4d_jax.types import InputError

LARGEST = 2**26  # bytes of a data.pkl; that of a 14B model has 0.3 MB
WRAPPERS = ("state_dict", "model", "module")
KINDS = {dtype: name.name for name, dtype in DTYPES.items()}


def open_torch(path: Path) -> dict[str, Lazy]:
    """The tensors of an archive by name, not yet read; a bare tensor has the name "".

    A checkpoint that keeps its weights beside other things is looked into: the weights are
    what lies under "state_dict", "model" or "module".
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _tensors(path, archive)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    # zipfile raises a dozen types for a damaged archive.
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{path}: no whole archive of PyTorch ({reason}); files of before version 1.6 "
            "have to be saved anew"
        ) from error


def write_torch(path: Path, tensors: Mapping[str, Lazy]) -> None:
    """An archive that `torch.load` reads, a piece in memory at a time; the single name ""
    makes it a bare tensor."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr("archive/data.pkl", _pickle(tensors))
        archive.writestr("archive/byteorder", "little")
        for key, tensor in enumerate(tensors.values()):
            info = zipfile.ZipInfo(f"archive/data/{key}")
            with archive.open(info, "w", force_zip64=True) as entry:
                for piece in tensor.pieces():
                    entry.write(as_bytes(piece))
        archive.writestr("archive/version", "3\n")


def _tensors(path: Path, archive: zipfile.ZipFile) -> dict[str, Lazy]:
    entries = {info.filename: info for info in archive.infolist()}
    roots = [n.removesuffix("data.pkl") for n in entries if n.endswith("/data.pkl")]
    if len(roots) != 1 or f"{roots[0]}constants.pkl" in entries:
        raise InputError("a compiled module or no checkpoint (need one data.pkl in it)")
    root = roots[0]
    order = f"{root}byteorder"
    for name in {order, f"{root}data.pkl"} & set(entries):
        _check(entries[name], LARGEST)
    if order in entries and archive.read(order) != b"little":
        raise InputError("its numbers are big-endian, need little-endian")
    views = _views(read_pickle(archive.read(f"{root}data.pkl")))
    tensors = {}
    for name, view in views.items():
        info = entries.get(f"{root}data/{view.storage.key}")
        need = view.storage.size * view.storage.dtype.itemsize
        if info is None or info.file_size != need:
            have = info.file_size if info else "no"
            raise InputError(f"{name} has {have} bytes, need {need}")
        _check(info, need)
        read = _reader(path, info.header_offset, view)
        tensors[name] = Lazy(view.shape, view.storage.dtype, read)
    return tensors


def _check(info: zipfile.ZipInfo, largest: int) -> None:
    """Refuses what PyTorch never writes, and what would not end."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > largest:
        raise InputError(f"{info.filename} is compressed or larger than {largest} bytes")


def _views(found) -> dict[str, View]:
    """The tensors by name, out of what the pickle describes."""
    for name in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if isinstance(found, View):
        return {"": found}
    if not isinstance(found, dict):
        raise InputError(f"holds a {type(found).__name__}, need a dict of tensors")
    odd = [
        f"{name} ({type(value).__name__})"
        for name, value in found.items()
        if not isinstance(name, str) or not isinstance(value, View)
    ]
    if odd:
        raise InputError(f"holds more than tensors: {', '.join(odd[:4])}")
    return found


def _reader(path: Path, header: int, view: View):
    """Reads the storage whose entry's own header begins at `header`."""
    storage = view.storage

    def read(index):
        try:
            with path.open("rb") as file:
                file.seek(header + 26)  # the lengths of two fields that end the header
                file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
                numbers = np.fromfile(file, storage.dtype, storage.size)
        except (OSError, struct.error) as error:
            raise InputError(f"{path}: cannot read it ({error})") from error
        if len(numbers) != storage.size:
            raise InputError(f"{path}: cut short in entry {storage.key}")
        strides = [storage.dtype.itemsize * stride for stride in view.strides]
        whole = np.lib.stride_tricks.as_strided(
            numbers[view.offset :], view.shape, strides, writeable=False
        )
        return whole[index]

    return read


def _pickle(tensors: Mapping[str, Lazy]) -> bytes:
    """Protocol 2, by hand: Python's own writer would have to import what it names."""
    parts = [b"\x80\x02"]
    if list(tensors) == [""]:
        return b"".join([*parts, _tensor("0", tensors[""]), b"."])
    parts += [b"ccollections\nOrderedDict\n)R("]
    for key, (name, tensor) in enumerate(tensors.items()):
        parts += [_text(name), _tensor(str(key), tensor)]
    return b"".join([*parts, b"u."])


def _tensor(key: str, tensor: Lazy) -> bytes:
    """_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)."""
    count = int(np.prod(tensor.shape))
    strides = [int(np.prod(tensor.shape[i + 1 :])) for i in range(len(tensor.shape))]
    return b"".join(
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            _text("storage"),
            f"ctorch\n{KINDS[tensor.dtype]}\n".encode(),
            _text(key),
            _text("cpu"),
            _whole(count),
            b"tQ",
            _whole(0),
            b"(" + b"".join(map(_whole, tensor.shape)) + b"t",
            b"(" + b"".join(map(_whole, strides)) + b"t",
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
    )


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _whole(n: int) -> bytes:
    if n < 2**31:
        return b"J" + struct.pack("<i", n)
    return b"\x8a\x08" + struct.pack("<q", n)
