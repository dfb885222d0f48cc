"""What a config asks to be learned: parameters, a loss, data, and samples to look at."""

from collections.abc import Callable
from typing import NamedTuple

from w4d_jax.data.encoded import EncodedSource
from w4d_jax.data.pipeline import Samples, check_sizes, names
from w4d_jax.data.skip import SkipBad
from w4d_jax.data.source import open_source
from w4d_jax.sample.preview import image
from w4d_jax.train import kinema4d
from w4d_jax.train.encode import settings


class Task(NamedTuple):
    """Pure functions; `frozen` are the leaves that do not train."""

    init: Callable  # key -> (params, frozen), random
    load: Callable  # frozen -> frozen with what lies in files; not to be jitted
    begin: Callable  # params -> params with what lies in files, at step 0; likewise
    loss: Callable  # params, frozen, batch, key -> (f32[], metrics)
    sample: Callable  # params, frozen, batch, key -> a video, as its method has it
    guess: Callable  # frozen, batch -> the same, what is known without a network
    items: Callable  # split (data/source.py) -> random access to dicts of arrays and "id"
    columns: Callable  # batch, video -> pictures to compare, u8[B,T,H,W,3] each


def build(config) -> Task:
    """The task of a config (a ConfigDict, or the same read back from config.json)."""
    data = config["data"]
    method = kinema4d.build(config)

    def items(split):
        size = data["frames"], data["height"], data["width"]
        check_sizes(*size)
        encoded = data.get("encoded", {}).get(split)
        if encoded:
            return SkipBad(EncodedSource(encoded, settings(config)), 0.0)
        return SkipBad(Samples(open_source(data, split), names(data["view"]), *size), 0.0)

    def columns(batch, video):
        return [batch["rgb"], image(video.rgb), image(video.pointmap)]

    first = method.init, method.load, method.begin
    return Task(*first, method.loss, method.sample, method.guess, items, columns)
