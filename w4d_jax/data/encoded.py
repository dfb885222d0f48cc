"""Clips as autoencoder and image encoder leave them, so that training runs neither.

    DIR/part-00002-of-00004    a store (data/store.py) of items 2, 6, 10, ...; each host
                               writes one, on its own

A record is an .npz of one view of one clip, cut to size:

    rgb_latent, pointmap_latent f16[t,h,w,C]   the clip
    robot_pointmap_latent f16[t,h,w,C]         the robot alone, in every frame
    robot_rgb_latent f16[t,h,w,C]              its picture, for variant "act"
    condition_latent f16[t,h,2w,C]             what the first image makes known
    blind_latent f16[t,h,2w,C]                 the same without the robot's motion, where
                                               that is something else
    outcome_latent f16[t,h,2w,C]               its change if the hand takes nothing along
    outcome_cells u8[thw / 8]                  where that would have stood, a bit each cell;
                                               both only where train/outcome.py draws
    robot_cells u8[thw / 8]                    which cells show the robot, likewise
    image f16[I,D]                             tokens of the first image, if asked for

Latents are the codec's own: how a task scales them is not in the files.
"""

import io
import json
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from w4d_jax.data.store import Records
from w4d_jax.types import InputError


class Encoded(NamedTuple):
    """One item, to be packed."""

    id: str  # "clip/view"
    arrays: dict[str, np.ndarray]  # cells still bool[t,h,w]


def pack(item: Encoded) -> bytes:
    """Its record. InputError, by name, if a value is not finite."""
    for name, x in item.arrays.items():
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise InputError(f"clip {item.id}: {name} holds NaN or infinity")
    file = io.BytesIO()
    bits = {k: np.packbits(x) for k, x in item.arrays.items() if x.dtype == bool}
    np.savez(file, **{**item.arrays, **bits, "id": np.array(item.id)})
    return file.getvalue()


def unpack(record: bytes) -> dict[str, Any]:
    """Its arrays and its "id", as a batch wants them."""
    try:
        with np.load(io.BytesIO(record), allow_pickle=False) as file:
            item: dict[str, Any] = {name: file[name] for name in file.files}
        grid = item["rgb_latent"].shape[:3]
        cells = {
            k: np.unpackbits(x, count=np.prod(grid)).reshape(grid).astype(bool)
            for k, x in item.items()
            if k.endswith("_cells")
        }
        return {**item, **cells, "id": str(item["id"])}
    # zipfile and numpy have a dozen types between them for a damaged file.
    except Exception as error:
        raise InputError(f"no encoded clip, or damaged ({error!r})") from error


def part(folder, host: int, hosts: int) -> Path:
    """Where one host writes."""
    return Path(folder) / f"part-{host:05d}-of-{hosts:05d}"


def label(settings: dict[str, Any], source: str) -> str:
    """What a part is of: the settings that decide its numbers, and the clips."""
    return json.dumps({"settings": settings, "source": source}, sort_keys=True)


class EncodedSource:
    """The items of all parts by index.

    settings: what they must have been made with; InputError names what differs.
    """

    def __init__(self, folder, settings: dict[str, Any]):
        self.folder = Path(folder)
        made = "encoded clips", "tools/encode.py"
        self._parts = open_parts(self.folder, *made, unpack, settings)
        self._ends = list(accumulate(len(records) for records in self._parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __repr__(self) -> str:
        return f"EncodedSource({self.folder})"

    def __getitem__(self, i: int) -> dict[str, Any]:
        if not 0 <= i < len(self):
            raise IndexError(f"item {i} of {len(self)}")
        at = bisect_right(self._ends, i)
        return self._parts[at][i - (self._ends[at - 1] if at else 0)]


def open_parts(
    folder: Path, what: str, tool: str, unpack: Callable, settings: dict[str, Any]
) -> list[Records]:
    """All parts of a folder; InputError, with what it should hold and the tool that makes
    it, if one is missing or made with other settings."""
    found = [Records(path, unpack) for path in _complete(folder, what, tool)]
    for records in found:
        _check(records, json.loads(json.dumps(settings)))
    return found


def _complete(folder: Path, what: str, tool: str) -> list[Path]:
    found = sorted(folder.glob("part-?????-of-?????"))
    if not found:
        raise InputError(f"{folder}: holds no {what}; make them with {tool}")
    hosts = int(found[0].name[-5:])
    wanted = [part(folder, host, hosts) for host in range(hosts)]
    if found != wanted:
        missing = [path.name for path in wanted if path not in found]
        raise InputError(
            f"{folder}: has {len(found)} parts, of {hosts}; missing: "
            f"{', '.join(missing[:4]) or 'none, some are of another number of hosts'}; "
            f"run {tool} on every host"
        )
    return found


def _check(records: Records, wanted: dict[str, Any]) -> None:
    """InputError, which names what differs, unless made with these settings."""
    try:
        made = json.loads(records.label)["settings"]
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{records.path}: a store of clips, not made of them") from error
    for name in sorted(wanted.keys() | made.keys()):
        if wanted.get(name) != made.get(name):
            raise InputError(
                f"{records.path}: made with {name} {made.get(name)}, the config has "
                f"{wanted.get(name)}; make it again or change the config"
            )
