"""Matched pixels on disk: a track head runs once for all moments, and never in training.

    DIR/part-00002-of-00004    a store (data/store.py) of items 2, 6, 10, ... of a split

A record is an .npz of one moment of data/scene.py: the arrays of kin/match.py's Pairs, with
confidence 0 where a track was lost.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np

from w4d_jax.data.encoded import Encoded, open_parts
from w4d_jax.kin.match import Pairs
from w4d_jax.types import InputError

PREFIX = "pair_"  # of the arrays' names in a batch


def pack(item: Encoded) -> bytes:
    """The record of a moment's Pairs, as a dict."""
    file, arrays = io.BytesIO(), dict[str, Any](item.arrays)
    np.savez(file, **arrays, id=np.array(item.id))
    return file.getvalue()


def unpack(record: bytes) -> dict[str, Any]:
    """Its arrays and its "id"."""
    try:
        with np.load(io.BytesIO(record), allow_pickle=False) as file:
            found = {name: file[name] for name in (*Pairs._fields, "id")}
        return found | {"id": str(found["id"])}
    # zipfile and numpy have a dozen types between them for a damaged file.
    except Exception as error:
        raise InputError(f"no tracks of a moment, or damaged ({error!r})") from error


class Matched:
    """Items of data/scene.py, with the pairs of their moments: "pair_view" and so on.

    settings: what the tracks must have been made with; InputError names what differs, and
    the first moment that is another.
    """

    def __init__(self, items, folder, settings: dict[str, Any]):
        self._items, self.folder = items, Path(folder)
        made = "tracks", "tools/track.py"
        self._parts = open_parts(self.folder, *made, unpack, settings)
        have = sum(map(len, self._parts))
        if have != len(items):
            raise InputError(
                f"{folder}: tracks of {have} moments, the data has {len(items)}; "
                "track again"
            )

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Matched({self._items!r}, {self.folder})"

    def __getitem__(self, i: int) -> dict:
        item, hosts = self._items[i], len(self._parts)
        found = self._parts[i % hosts][i // hosts]
        if found["id"] != item["id"]:
            raise InputError(
                f"{self.folder}: moment {i} is of {found['id']}, the data's of "
                f"{item['id']}; track again"
            )
        return item | {PREFIX + name: found[name] for name in Pairs._fields}


def told(batch) -> Pairs | None:
    """The pairs that came with a batch, if any did."""
    if PREFIX + "view" not in batch:
        return None
    return Pairs(*(batch[PREFIX + name] for name in Pairs._fields))
