"""The networks that a checkpoint may hold: what their sizes are called, and the shapes of
their parameters, found without allocating any."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from w4d_jax.nets import vae
from w4d_jax.nets.clip import ClipConfig, ClipVision
from w4d_jax.nets.dit import DiTConfig, Wan
from w4d_jax.nets.kinema4d import Kinema4D, Kinema4DConfig
from w4d_jax.nets.text import TextConfig, TextEncoder
from w4d_jax.nets.vae import VAEConfig
from w4d_jax.nets.vggt.config import VGGTConfig
from w4d_jax.nets.vggt.model import VGGT
from w4d_jax.nets.weights import flat
from w4d_jax.nets.wristworld import WristWorld, WristWorldConfig

Shapes = dict[str, tuple[int, ...]]


class Model(NamedTuple):
    config: type  # a dataclass
    shapes: Callable[[Any], Shapes]  # config -> shapes of the parameters by path


def wan(config: DiTConfig) -> Shapes:
    latent = (1, 1, *config.patch[1:], config.in_channels)
    image = (1, 1, config.image_dim) if config.image_dim else None
    return shapes(Wan(config).init, latent, (1,), (1, 1, config.text_dim), image)


def kinema4d(config: Kinema4DConfig) -> Shapes:
    """With the text embedder of Wan, which the network never uses: its files hold it."""
    dit, (t, h, w) = config.dit, config.robot_grid
    grid = 1, t, h * config.robot_patch
    wide = w * config.robot_patch * config.modalities
    narrow = w * config.robot_patch * config.robot_modalities
    image = (1, 1, dit.image_dim) if dit.image_dim else None
    found = shapes(
        Kinema4D(config).init,
        (*grid, wide, config.channels),
        (*grid, wide, config.told_channels),
        (*grid, narrow, config.mask_channels + config.channels),
        (1,),
        image,
    )
    text = {path: shape for path, shape in wan(dit).items() if path.startswith("text/")}
    return found | text


def wan_4dnex(config: DiTConfig) -> Shapes:
    return wan(config) | {"domain": (2, config.width)}


def video_autoencoder(config: VAEConfig) -> Shapes:
    return shapes(lambda key: vae.init(key, config))


def umt5(config: TextConfig) -> Shapes:
    return shapes(TextEncoder(config).init, (1, 1), (1, 1), dtype=jnp.int32)


def clip(config: ClipConfig) -> Shapes:
    side = config.side

    def init(key, image):
        return ClipVision(config).init(key, image, method="whole")

    return shapes(init, (1, side, side, 3))


def vggt(config: VGGTConfig) -> Shapes:
    side = config.positions * config.patch
    queries = (1, 1, 2) if config.track else None
    views = (config.wrist and config.wrist.views) or 2
    return shapes(VGGT(config).init, (1, views, side, side, 3), queries)


def wristworld(config: WristWorldConfig) -> Shapes:
    dit = config.dit
    cell = 1, 1, *dit.patch[1:]
    return shapes(
        WristWorld(config).init,
        (*cell, dit.out_channels),
        (*cell, dit.in_channels - dit.out_channels),
        (1,),
        (1, 1, dit.text_dim),
        (1, 1, 1, config.feature_dim),
    )


def shapes(init: Callable, *inputs, dtype: Any = jnp.float32) -> Shapes:
    """Of what init(key, *arrays of these shapes) returns; None stays None."""
    arrays = [x and jax.ShapeDtypeStruct(x, dtype) for x in inputs]
    found = jax.eval_shape(init, jax.random.key(0), *arrays)
    return {path: leaf.shape for path, leaf in flat(found.get("params", found)).items()}


MODELS = {
    "wan": Model(DiTConfig, wan),
    "kinema4d": Model(Kinema4DConfig, kinema4d),
    "4dnex": Model(DiTConfig, wan_4dnex),
    "vae": Model(VAEConfig, video_autoencoder),
    "umt5": Model(TextConfig, umt5),
    "clip": Model(ClipConfig, clip),
    "vggt": Model(VGGTConfig, vggt),
    "wristworld": Model(WristWorldConfig, wristworld),
}
