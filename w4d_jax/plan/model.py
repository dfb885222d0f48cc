"""What a planner has to know of a config's task: its sizes, its batches, its operations."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.flops import Forward, counted, transformer
from w4d_jax.train import kinema4d
from w4d_jax.types import InputError


class Model(NamedTuple):
    """A task at its size; operations are of one example."""

    dit: DiTConfig
    tokens: int
    forward: Forward
    coders: float  # what a training step spends on encoders; 0 for encoded clips
    forwards: int  # of the denoiser in a draw
    drawn: float  # operations of a draw, encoders and decoder with it
    batch: Callable[[int], dict[str, Any]]  # examples -> what training is given, as shapes
    clips: Callable[[int], dict[str, Any]]  # and what a draw is given


def model_of(config) -> Model:
    """Of a config whose task is Kinema4D. Training is given encoded clips where
    data.encoded.train names a folder, else clips."""
    if config["task"] != "kinema4d":
        raise InputError(f"task {config['task']!r}: plans know kinema4d")
    task = kinema4d.build(config)
    net = task.net.config
    dit, image = net.dit, 257 if net.dit.image_dim else 0
    t, h, w = task.grid
    p, q, r = dit.patch
    tokens = (t // p) * (h // q) * (2 * w // r)
    context = math.prod(net.robot_grid) * net.robot_modalities
    forward = transformer(dit, tokens, context, image, task.lora.rank)

    def clips(count: int) -> dict[str, Any]:
        return _clips(config["data"], count)

    def encoded(count: int) -> dict[str, Any]:
        frozen = jax.eval_shape(task.draw_coders, jax.random.key(0))
        made = jax.eval_shape(
            lambda frozen, batch: task.bound(frozen).encodings(batch), frozen, clips(count)
        )
        stored = {name: jnp.float16 for name, x in made.items() if x.dtype != bool}
        return {
            name: jax.ShapeDtypeStruct(x.shape, stored.get(name, x.dtype))
            for name, x in made.items()
        }

    def coded(function) -> float:
        """Operations of a function of one clip and the encoders."""
        frozen = jax.eval_shape(task.draw_coders, jax.random.key(0))
        made = jax.make_jaxpr(lambda frozen, *a: function(task.bound(frozen), *a))
        return counted(made(frozen, clips(1)).jaxpr)

    ahead = bool(config["data"].get("encoded", {}).get("train"))
    latent = jnp.zeros((1, t, h, 2 * w, task.codec.channels))
    forwards = task.sampler.steps * (1 if task.sampler.guidance == "off" else 2)
    known = coded(lambda task, batch: task.known(batch))
    decoded = coded(lambda task, batch: task.decode(latent))
    return Model(
        dit,
        tokens,
        forward,
        0.0 if ahead else coded(lambda task, batch: task.encodings(batch)),
        forwards,
        forwards * forward.total + known + decoded,
        encoded if ahead else clips,
        clips,
    )


def _clips(data, count: int) -> dict[str, Any]:
    """A batch of data/pipeline.py, without its ids."""
    T, H, W = (data[key] for key in ("frames", "height", "width"))
    sizes = {"rgb": (T, H, W, 3), "robot_rgb": (T, H, W, 3), "depth": (T, H, W)}
    sizes |= {"robot_depth": (T, H, W), "K": (3, 3), "cam_from_world": (T, 4, 4)}
    sizes |= {"center": (3,), "scale": ()}
    return {
        name: jax.ShapeDtypeStruct((count, *size), "uint8" if "rgb" in name else "float32")
        for name, size in sizes.items()
    }
