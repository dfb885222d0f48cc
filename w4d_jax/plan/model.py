"""What a planner has to know of a config's task: its sizes, its batches, its operations."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from w4d_jax.nets.flops import Forward, counted, transformer
from w4d_jax.nets.remat import REMAT
from w4d_jax.train import geometry, kinema4d, wristworld

Shapes = dict[str, Any]


class Model(NamedTuple):
    """A task at its size; operations are of one example."""

    net: Any  # the transformer's layers, width and heads
    tokens: int
    forward: Forward  # through the transformer
    step: float  # of training it: forwards and backwards
    coders: float  # what training spends on encoders; 0 for encoded clips
    drawn: float  # of a draw, encoders and decoder with it
    remats: tuple[str, ...]  # that are worth a try
    batch: Callable[[int], Shapes]  # examples -> what training is given
    clips: Callable[[int], Shapes]  # and what a draw is given


def model_of(config) -> Model:
    """Of a config. Training is given encoded clips where data.encoded.train names a
    folder, else clips."""
    tasks = {
        "kinema4d": _kinema4d,
        "wristworld_video": _wrist_video,
        "wristworld_geometry": _wrist_geometry,
    }
    return tasks[config["task"]](config)


def _kinema4d(config) -> Model:
    task = kinema4d.build(config)
    net, joint = task.net.config, task.joint
    t, h, w = joint.grid
    context = math.prod(net.robot_grid) * net.robot_modalities
    tokens = _tokens((t, h, 2 * w), net.dit.patch)
    sizes = {"rgb": (3,), "robot_rgb": (3,), "depth": (), "robot_depth": ()}
    still = {"K": (3, 3), "cam_from_world": (joint.frames, 4, 4), "center": (3,)}
    still |= {"actions": (joint.frames, 8)}

    def clips(count: int) -> Shapes:
        shown = {name: (*_video(joint), *rest) for name, rest in sizes.items()}
        return _shapes(count, shown | still | {"scale": ()})

    def encoded(count: int) -> Shapes:
        made = jax.eval_shape(
            lambda frozen, batch: joint.bound(frozen).encodings(batch), frozen, clips(count)
        )
        stored = {name: jnp.float16 for name, x in made.items() if x.dtype != bool}
        return {
            name: jax.ShapeDtypeStruct(x.shape, stored.get(name, x.dtype))
            for name, x in made.items()
        }

    frozen = jax.eval_shape(task.draw_coders, jax.random.key(0))
    latent = jnp.zeros((1, t, h, 2 * w, joint.codec.channels))

    def ends(frozen, batch):
        bound = joint.bound(frozen)
        return bound.known(batch), bound.decode(latent)

    known = jax.eval_shape(lambda f, b: joint.bound(f).known(b), frozen, clips(1))
    image = 0 if known.image is None else known.image.shape[1]
    forward = transformer(net.dit, tokens, context, image, task.lora.rank)
    ahead = bool(config["data"].get("encoded", {}).get("train"))
    coders = (
        0.0
        if ahead
        else _count(lambda f, batch: joint.bound(f).encodings(batch), frozen, clips(1))
    )
    return Model(
        net.dit,
        tokens,
        forward,
        forward.step,
        coders,
        _forwards(task.sampler) * forward.total + _count(ends, frozen, clips(1)),
        tuple(REMAT),
        encoded if ahead else clips,
        clips,
    )


def _wrist_video(config) -> Model:
    """The embedders of text and views, some 4e-5 of all, are not counted."""
    task = wristworld.build(config)
    net, (t, h, w) = task.net.config.dit, task.grid
    tokens, rank = _tokens((t, h, w), net.patch), task.lora.rank
    forward = transformer(net, tokens, task.text.rows, rank=rank, ffn_rank=rank)
    views = len(config["data"]["anchors"])

    def clips(count: int) -> Shapes:
        whole = _video(task)
        known = {"map": (*whole, 3), "valid": whole, "anchors": (views, *whole, 3)}
        return _shapes(count, known)

    def batch(count: int) -> Shapes:
        return clips(count) | _shapes(count, {"rgb": (*_video(task), 3)})

    frozen = jax.eval_shape(task.init, jax.random.key(0))[1]
    latent = jnp.zeros((1, t, h, w, task.codec.channels))
    known = _count(task.known, frozen, clips(1))
    pixels = jnp.zeros((1, *_video(task), 3))
    return Model(
        net,
        tokens,
        forward,
        forward.step,
        known + _count(lambda f: f["codec"].encode(pixels), frozen),
        _forwards(task.sampler) * forward.total
        + known
        + _count(lambda f: task.decode(f, latent), frozen),
        tuple(REMAT),
        batch,
        clips,
    )


def _wrist_geometry(config) -> Model:
    """Its step is counted whole, for its frozen parts pass nothing back."""
    task = geometry.build(config)
    net, size = task.net.config, (task.height, task.width)
    params, frozen = jax.eval_shape(task.init, jax.random.key(0))

    def clips(count: int) -> Shapes:
        wrist = {"rgb": (*size, 3), "depth": size, "K": (3, 3), "cam_from_world": (4, 4)}
        anchors = {name: (task.views, *rest) for name, rest in wrist.items()}
        wrist = {f"wrist_{name}": rest for name, rest in wrist.items()}
        return _shapes(count, anchors | wrist)

    def slope(params, frozen, batch, key):
        return jax.grad(task.loss, has_aux=True)(params, frozen, batch, key)

    key = jax.eval_shape(lambda: jax.random.key(0))
    drawn = _count(task.sample, params, frozen, clips(1), key)
    return Model(
        net,
        task.views * (math.prod(net.grid(*size)) + 1 + net.registers),
        Forward(drawn, 0.0),
        _count(slope, params, frozen, clips(1), key),
        0.0,
        drawn,
        (net.remat,),
        clips,
        clips,
    )


def _tokens(latent: tuple[int, int, int], patch: tuple[int, int, int]) -> int:
    return math.prod(n // p for n, p in zip(latent, patch, strict=True))


def _video(task) -> tuple[int, int, int]:
    return task.frames, task.height, task.width


def _forwards(sampler) -> int:
    return sampler.steps * (1 if sampler.guidance == "off" else 2)


def _count(function: Callable, *shapes: Any) -> float:
    return counted(jax.make_jaxpr(function)(*shapes).jaxpr)


def _shapes(count: int, sizes: dict[str, tuple[int, ...]]) -> Shapes:
    """Of a batch from the pipeline, without its ids; pictures are bytes."""
    pictures = ("rgb", "robot_rgb", "wrist_rgb", "map", "anchors")
    kinds = dict.fromkeys(pictures, "uint8") | {"valid": "bool"}
    return {
        name: jax.ShapeDtypeStruct((count, *size), kinds.get(name, "float32"))
        for name, size in sizes.items()
    }
