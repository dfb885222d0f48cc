"""What a config asks to be learned: parameters, a loss, data, and samples to look at."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from w4d_jax.data.encoded import EncodedSource
from w4d_jax.data.pipeline import Samples, check_sizes, names
from w4d_jax.data.scene import SceneSamples
from w4d_jax.data.skip import SkipBad
from w4d_jax.data.source import open_source
from w4d_jax.data.tracks import Matched
from w4d_jax.data.wrist import WristSamples
from w4d_jax.sample.preview import image
from w4d_jax.train import geometry, kinema4d, track, wristworld
from w4d_jax.train.encode import settings
from w4d_jax.types import InputError

MOMENTS = 32  # in the middle of which the wrist's camera begins


class Task(NamedTuple):
    """Pure functions; `frozen` are the leaves that do not train."""

    init: Callable  # key -> (params, frozen), random
    load: Callable  # frozen -> frozen with what lies in files; not to be jitted
    begin: Callable  # params -> params with what lies in files, at step 0; likewise
    loss: Callable  # params, frozen, batch, key -> (f32[], metrics)
    sample: Callable  # params, frozen, batch, key -> a video or scene, as its method has it
    guess: Callable  # frozen, batch -> the same, what is known without a network
    items: Callable  # split (data/source.py) -> random access to dicts of arrays and "id"
    columns: Callable  # batch, video -> pictures to compare, u8[B,T,H,W,3] each


def build(config) -> Task:
    """The task of a config (a ConfigDict, or the same read back from config.json)."""
    methods = {
        "kinema4d": kinema4d_task,
        "wristworld_geometry": geometry_task,
        "wristworld_video": wristworld_task,
    }
    if config["task"] not in methods:
        raise InputError(f"task={config['task']!r}: need one of {', '.join(methods)}")
    return methods[config["task"]](config)


def kinema4d_task(config) -> Task:
    """RGB and pointmap of what a robot's motion does."""
    data, method = config["data"], kinema4d.build(config)

    def items(split):
        size = data["frames"], data["height"], data["width"]
        check_sizes(*size)
        encoded = data.get("encoded", {}).get(split)
        if encoded:
            return SkipBad(EncodedSource(encoded, settings(config)), 0.0)
        return SkipBad(Samples(open_source(data, split), names(data["view"]), *size), 0.0)

    def columns(batch, video):
        return [batch["rgb"], image(video.rgb), image(video.pointmap)]

    return joined(method, items, columns)


def geometry_task(config) -> Task:
    """Points and the wrist camera from single moments of anchor views."""
    data, method = config["data"], geometry.build(config)
    *anchors, wrist = names(data["view"])

    def items(split):
        size = data["frames"], data["height"], data["width"]
        moments = SceneSamples(open_source(data, split), tuple(anchors), wrist, *size)
        tracks = data.get("tracks", {}).get(split)
        if tracks:
            moments = Matched(moments, tracks, track.settings(config))
        return SkipBad(moments, 0.0)

    def columns(batch, scene):
        """The anchors in turn, the wrist view, and the points as seen from there."""
        views = len(anchors)
        still = batch["wrist_rgb"], geometry.drawn(batch, scene)
        return [batch["rgb"], *(np.repeat(x[:, None], views, 1) for x in still)]

    def begin(params):
        """A wrist's pose that is learned from nothing begins in the middle of some."""
        begun = method.begin(params)
        if method.base or method.trains or not method.losses.pose:
            return begun
        moments = items("train")
        some = np.linspace(0, len(moments), MOMENTS, endpoint=False).astype(int)
        return method.in_the_middle(begun, [moments[i] for i in some])

    return joined(method, items, columns)._replace(begin=begin)


def wristworld_task(config) -> Task:
    """The wrist view of what anchor views show."""
    data, method = config["data"], wristworld.build(config)

    def items(split):
        size = data["frames"], data["height"], data["width"]
        check_sizes(*size)
        source, anchors = open_source(data, split), names(data["anchors"])
        return SkipBad(WristSamples(source, anchors, data["view"], *size), 0.0)

    def columns(batch, video):
        return [batch["rgb"], image(video.rgb), batch["map"]]

    return joined(method, items, columns)


def joined(method, items, columns) -> Task:
    """A method's functions, with its data and its pictures."""
    first = method.init, method.load, method.begin
    return Task(*first, method.loss, method.sample, method.guess, items, columns)
