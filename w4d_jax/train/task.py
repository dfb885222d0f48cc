"""What a config asks to be learned: parameters, a loss, and samples to look at."""

from collections.abc import Callable
from typing import NamedTuple

from w4d_jax.train import kinema4d


class Task(NamedTuple):
    """Pure functions; `frozen` are the leaves that do not train."""

    init: Callable  # key -> (params, frozen), random
    load: Callable  # frozen -> frozen with what lies in files; not to be jitted
    loss: Callable  # params, frozen, batch, key -> (f32[], metrics)
    sample: Callable  # params, frozen, batch, key -> kinema4d.Video
    guess: Callable  # frozen, batch -> kinema4d.Video, what is known without a network


def build(config) -> Task:
    """The task of a config (a ConfigDict, or the same read back from config.json)."""
    method = kinema4d.build(config)
    return Task(method.init, method.load, method.loss, method.sample, method.guess)
