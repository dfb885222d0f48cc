"""Clips on disk: a folder of ArrayRecord shards and an index.

    DIR/index.json                {"schema", "source", "shards": [{"file", "bytes", "ids"}]}
    DIR/clips-00000.arrayrecord   one record a clip (`data/record.py`), zstd, group size 1

The same folder holds anything else with an id that becomes bytes (`data/encoded.py`).

A store appears under its name only when it is complete. A writer that was stopped leaves
DIR.partial, which does not read as a store; the same call again goes on from there.
"""

import json
import operator
import os
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from w4d_jax.data import record
from w4d_jax.types import InputError


def write(
    path,
    source,
    *,
    label: str,
    shard_clips: int = 64,
    progress=iter,
    pack: Callable[[Any], bytes] = record.pack,
) -> None:
    """Writes every clip of `source` (len and getitem) as a new store.

    label: says what `source` is; an unfinished store goes on only under the same one.
    progress: wraps the range of clips still to write, for instance tqdm.
    pack: makes the record of a clip, or of whatever else the source holds.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"store {path}: exists already; remove it or choose another name")
    if not len(source):
        raise InputError(f"store {path}: the source holds no clips")
    partial = path.with_name(path.name + ".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"store {path}: cannot make it ({error.strerror})") from error
    unfinished = partial / "unfinished.json"
    index = {"schema": record.SCHEMA, "source": label, "shards": []}
    if unfinished.exists():
        index = _read_index(unfinished)
        if index["source"] != label:
            raise InputError(
                f"store {partial}: of {index['source']}, not {label}; remove it"
            )
    seen = {id for shard in index["shards"] for id in shard["ids"]}
    todo = iter(progress(range(len(seen), len(source))))
    while len(seen) < len(source):
        file = partial / f"clips-{len(index['shards']):05d}.arrayrecord"
        ids = []
        writer = ArrayRecordWriter(str(file), "group_size:1,zstd:3")
        try:
            for i in islice(todo, shard_clips):
                clip = source[i]
                if clip.id in seen:
                    raise InputError(f"store {path}: clip {i} repeats the id {clip.id!r}")
                writer.write(pack(clip))
                ids.append(clip.id)
                seen.add(clip.id)
        finally:
            writer.close()
        index["shards"].append(
            {"file": file.name, "bytes": file.stat().st_size, "ids": ids}
        )
        written = unfinished.with_suffix(".new")
        written.write_text(json.dumps(index), encoding="utf-8")
        os.replace(written, unfinished)
    os.replace(unfinished, partial / "index.json")
    partial.rename(path)


class Records:
    """The records of a store by index, each as `unpack` reads it. Files open when first
    read; safe for threads."""

    def __init__(self, path, unpack: Callable[[bytes], Any]):
        self.path, self._unpack = Path(path), unpack
        index = _read_index(self.path / "index.json")
        self.label, shards = index["source"], index["shards"]
        for shard in shards:
            file = self.path / shard["file"]
            size = file.stat().st_size if file.is_file() else -1
            if size != shard["bytes"]:
                what = (
                    "missing"
                    if size < 0
                    else f"{size} bytes, the index says {shard['bytes']}"
                )
                raise InputError(f"store {file}: {what}; prepare the store again")
        self.ids = [id for shard in shards for id in shard["ids"]]
        self._files = [shard["file"] for shard in shards]
        self._ends = list(accumulate(len(shard["ids"]) for shard in shards))
        self._records = ArrayRecordDataSource(
            [f"{self.path / shard['file']}[0:{len(shard['ids'])}]" for shard in shards]
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i):
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"clip {i} of {len(self)}")
        shard = bisect_right(self._ends, i)
        place = f"store {self.path / self._files[shard]}, clip {i} ({self.ids[i]})"
        try:
            data = self._records[i]
        # ArrayRecord says RuntimeError, IndexError or ValueError for a damaged file.
        except Exception as error:
            raise InputError(f"{place}: cannot read it ({error})") from error
        try:
            return self._unpack(data)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error


class StoreSource(Records):
    """The clips of a store by index.

    views: those to read; the others are not decoded. None reads all.
    """

    def __init__(self, path, views: tuple[str, ...] | None = None):
        super().__init__(path, partial(record.unpack, views=views))
        self.views = views

    def __repr__(self) -> str:
        return f"StoreSource({self.path}, {self.views})"


def _read_index(file: Path) -> dict:
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        schema, shards = index["schema"], index["shards"]
        if schema != record.SCHEMA:
            raise InputError(
                f"store {file}: schema {schema}, this version reads {record.SCHEMA}"
            )
        whole = (
            isinstance(index["source"], str)
            and shards != []
            and all(
                Path(shard["file"]).name == shard["file"]
                and isinstance(shard["bytes"], int)
                and shard["ids"]
                and all(isinstance(id, str) for id in shard["ids"])
                for shard in shards
            )
        )
    except OSError as error:
        raise InputError(f"store {file}: cannot read it ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"store {file}: not the index of a store ({error!r})") from error
    if not whole:
        raise InputError(f"store {file}: not the index of a store")
    return index
