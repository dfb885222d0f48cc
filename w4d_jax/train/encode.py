"""Clips through autoencoder and image encoder once and for all: what tools/encode.py runs.

Each host encodes every hosts-th item on its own devices, a batch spread over them, and
shares nothing with the others but the folder.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from w4d_jax.data.encoded import Encoded, label, pack, part
from w4d_jax.data.pipeline import Samples, check_sizes, names
from w4d_jax.data.source import Part, open_source
from w4d_jax.data.store import Records, write
from w4d_jax.nets.clip import ImageEncoder
from w4d_jax.nets.codec import WanCodec
from w4d_jax.nets.lazy import digest
from w4d_jax.train.codec import build_codec
from w4d_jax.train.image_encoder import build_image_encoder
from w4d_jax.train.kinema4d import build
from w4d_jax.train.shard import batch_sharding, make_mesh
from w4d_jax.train.start import coder_leaves
from w4d_jax.types import InputError

# Where weights lie and how precisely they work, not what is computed with them.
RUNTIME = ("weights", "dtype", "param_dtype", "chunk")


def settings(config) -> dict[str, Any]:
    """What the numbers of an encoded clip hang on."""
    data, condition, model = config["data"], config["condition"], config["model"]

    def sizes(group):
        return {
            kind: {k: v for k, v in dict(entries).items() if k not in RUNTIME}
            for kind, entries in dict(group).items()
        }

    return {
        **{key: data[key] for key in ("frames", "height", "width")},
        "view": names(data["view"]),
        "codec": sizes(config["codec"]),
        "image": sizes(config.get("image", {})),
        "variant": model["variant"],
        "fill": condition["fill"],
        "geometry": condition["geometry"],
        "ground": condition.get("ground", 0.0),
        "outcomes": condition.get("outcomes", False),
        **weights(config),
    }


def weights(config) -> dict[str, str]:
    """Which weights the coders have: a digest of them, or the seed that draws them."""
    coders = {
        "codec weights": ("vae", *build_codec(config["codec"])),
        "image weights": ("clip", *build_image_encoder(config.get("image", {}))),
    }
    return {
        name: digest(coder_leaves(path, kind, coder.config))
        if path
        else f"drawn by seed {config['seed']}"
        for name, (kind, coder, path) in coders.items()
        if isinstance(coder, WanCodec | ImageEncoder)
    }


def encode(
    config,
    split: str,
    out,
    *,
    host: int = 0,
    hosts: int = 1,
    batch: int | None = None,
    dtype: str = "float16",
    shard_clips: int = 64,
    progress=iter,
) -> Records:
    """Writes the part of one host, or goes on with it; nothing where it is complete.

    batch: items at a time, over all devices of this host; None: one each. progress: wraps
    the range of items still to encode.
    """
    if not 0 <= host < hosts:
        raise InputError(f"host {host} of {hosts}: need 0 <= host < hosts")
    data = config["data"]
    size = data["frames"], data["height"], data["width"]
    check_sizes(*size)
    samples = Samples(open_source(data, split), names(data["view"]), *size)
    mine = range(host, len(samples), hosts)
    if not mine:
        raise InputError(f"host {host} of {hosts}: {len(samples)} items, need fewer hosts")
    place = part(out, host, hosts)
    of = label(settings(config), f"{samples!r}, {split}, {dtype}")
    start, asked = partial(encoder, config, batch, dtype), Part(samples, mine)
    options = {"shard_clips": shard_clips, "progress": progress, "pack": pack}
    return completed(place, of, asked, start, **options)


def encoder(config, batch: int | None, dtype: str) -> tuple[Callable, int]:
    """(encode, items a batch): a batch of clips as host arrays -> its encodings, on all
    devices of this host."""
    task = build(config)
    mesh = make_mesh({"data": -1}, jax.local_devices())
    batch = mesh.size if batch is None else batch
    spread = batch_sharding(mesh, batch)
    key = jax.random.key(config["seed"])
    with jax.set_mesh(mesh):
        whole = NamedSharding(mesh, P())
        coders = task.load(jax.jit(task.draw_coders, out_shardings=whole)(key))

    @jax.jit
    def made(coders, clips):
        latents = task.joint.bound(coders).encodings(clips)
        floats = {name: x.astype(dtype) for name, x in latents.items() if x.dtype != bool}
        return latents | floats

    def encode(clips):
        with jax.set_mesh(mesh):
            return jax.device_get(made(coders, jax.device_put(clips, spread)))

    return encode, batch


class Encodings:
    """Items as data/encoded.py packs them, for `data/store.py:write`, which asks for one
    after the other: computed a batch at a time while `reader` reads the next."""

    def __init__(self, items, run: Callable, batch: int, reader: Executor):
        self._items, self._run, self._batch = items, run, batch
        self._made: dict[int, Encoded] = {}
        self._reader = reader
        self._read = range(0), self._fetch(range(0))  # what is read ahead

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, i: int) -> Encoded:
        if i not in self._made:
            self._made = dict(zip(self._range(i), self._encode(i), strict=True))
        return self._made[i]

    def _range(self, start: int) -> range:
        return range(start, min(start + self._batch, len(self)))

    def _encode(self, start: int) -> list[Encoded]:
        asked = self._range(start)
        ahead, job = self._read
        clips = (job if ahead == asked else self._fetch(asked)).result()
        following = self._range(asked.stop)
        self._read = following, self._fetch(following)
        ids = [clip.pop("id") for clip in clips]
        # The last batch is filled up by repeating, so that one program serves all.
        whole = {
            name: np.stack([clips[j % len(clips)][name] for j in range(self._batch)])
            for name in clips[0]
        }
        made = self._run(whole)
        return [
            Encoded(id, {name: x[j] for name, x in made.items()})
            for j, id in enumerate(ids)
        ]

    def _fetch(self, asked: range) -> Future:
        return self._reader.submit(lambda: [self._items[j] for j in asked])


def completed(place, of: str, items, start: Callable, **options) -> Records:
    """The part at `place`, made of the items if it is not there yet by what start() gives:
    (run, items a batch). options are those of data/store.py `write`. InputError if what is
    there is of something else."""
    if not place.exists():
        run, batch = start()
        with ThreadPoolExecutor(1) as reader:
            write(place, Encodings(items, run, batch, reader), label=of, **options)
    records = Records(place, bytes)
    if records.label != of:
        raise InputError(
            f"{place}: holds {records.label}, not {of}; choose another --out or remove it"
        )
    return records
