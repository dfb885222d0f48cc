"""Where a config's clips come from: simulated on the fly, recorded episodes, or a store."""

import threading
from pathlib import Path

from w4d_jax.data.calvin import CalvinSource
from w4d_jax.data.pipeline import names
from w4d_jax.data.sim.source import SimSource
from w4d_jax.data.store import StoreSource
from w4d_jax.data.wrist import Mapped
from w4d_jax.types import Clip, InputError

# Of the simulation. What is looked at while training says nothing about the last.
SEEDS = {"train": 0, "validation": 1, "test": 2}


def open_source(data, split: str):
    """The clips of config.data, which holds one of `sim`, `calvin`, `store`; where it names
    `anchors`, with condition maps (data/wrist.py).

    split: "train"; "validation", shown while training; "test", for the last word. Each is a
    seed of the simulation. Recorded episodes are divided in two: validation is test.
    """
    kinds = [kind for kind in ("sim", "calvin", "store") if kind in data]
    if len(kinds) != 1:
        raise InputError(
            f"data: has {kinds or 'no source'}, need one of sim, calvin, store"
        )
    options, size = dict(data[kinds[0]]), {k: data[k] for k in ("height", "width")}
    anchors = names(data.get("anchors", ()))
    if kinds == ["sim"]:
        count = options["episodes" if split == "train" else "held_out"]
        options = {k: v for k, v in options.items() if k not in ("episodes", "held_out")}
        seen = {"views": (*anchors, *names(data["view"])), "frames": data["frames"]}
        source = SimSource(SEEDS[split], count, **seen, **size, **options)
    elif kinds == ["calvin"]:
        episodes = CalvinSource(Path(options["folder"]), options["robot"])
        kept = len(episodes) - options["held_out"]
        if not 0 < kept < len(episodes):
            raise InputError(
                f"data.calvin: {len(episodes)} episodes, "
                f"held_out={options['held_out']}; need one or more for each"
            )
        part = range(kept) if split == "train" else range(kept, len(episodes))
        source = Part(episodes, part)
    else:
        source = StoreSource(Path(options["train" if split == "train" else "test"]))
    if anchors:
        source = Mapped(
            source, anchors, data["view"], robot=data.get("robot", False), **size
        )
    return source if kinds == ["store"] else Remember(source)


class Part:
    """The items of a source at `indices`."""

    def __init__(self, source, indices: range):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __repr__(self) -> str:
        return f"{self._source!r}[{self._indices}]"

    def __getitem__(self, index) -> Clip:
        return self._source[self._indices[index]]


class Remember:
    """A source that keeps every clip it has made: the second epoch costs nothing.

    For sources that compute their clips. Two threads that ask for one new clip may both
    compute it; the clips are equal.
    """

    def __init__(self, source):
        self._source, self._clips, self._lock = source, {}, threading.Lock()

    def __len__(self) -> int:
        return len(self._source)

    def __repr__(self) -> str:
        return repr(self._source)

    def __getitem__(self, index) -> Clip:
        with self._lock:
            clip = self._clips.get(index)
        if clip is None:
            clip = self._source[index]
            with self._lock:
                self._clips[index] = clip
        return clip
