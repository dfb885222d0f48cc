"""The codec that a config asks for, and its weights out of a file."""

import dataclasses

import jax

from w4d_jax.nets.codec import Codec, CosineCodec, WanCodec
from w4d_jax.nets.files import read_safetensors
from w4d_jax.nets.vae import VAEConfig
from w4d_jax.nets.vae_names import vae as vae_names
from w4d_jax.nets.weights import from_torch
from w4d_jax.train.config import filled
from w4d_jax.types import InputError


def build_codec(config) -> tuple[Codec, str]:
    """The codec, yet without weights, and the file that holds them. One of

    {"cosine": {"stride": ...}}
    {"wan": {"weights": a .safetensors in diffusers' names, "dtype": "float32", "chunk": 1,
    and the fields of VAEConfig}}. weights "" draws them from the seed: for tests only, such
    a codec loses what it is given.
    """
    if len(config) != 1 or not set(config) <= {"cosine", "wan"}:
        raise InputError(f"codec {sorted(config)}: need exactly one of cosine, wan")
    if "cosine" in config:
        return CosineCodec(tuple(config["cosine"]["stride"])), ""
    sizes = dict(config["wan"])
    weights = sizes.pop("weights", "")
    options = {key: sizes.pop(key) for key in ("dtype", "chunk") if key in sizes}
    return WanCodec(None, filled(VAEConfig, sizes, "codec.wan"), **options), weights


def load_codec(path: str, drawn: Codec) -> Codec:
    """The codec with the weights of the file at `path`, typed and laid as the drawn ones
    are; `drawn` itself where path is ""."""
    if not path or not isinstance(drawn, WanCodec):
        return drawn
    try:
        params = from_torch(vae_names(drawn.config), read_safetensors(path))
    except InputError as error:
        raise InputError(f"codec.wan.weights {path}: {error}") from error

    params = as_drawn(params, drawn.params, f"codec.wan.weights {path}")
    return dataclasses.replace(drawn, params=params)


def as_drawn(params, drawn, name: str):
    """Weights out of the file `name`, typed and laid as the drawn ones are."""

    def place(keys, old, new):
        if new.shape != old.shape:
            raise InputError(
                f"{name}: {jax.tree_util.keystr(keys)} is {new.shape}, the config needs "
                f"{old.shape}; set the config's sizes to the file's"
            )
        return jax.device_put(new.astype(old.dtype), old.sharding)

    return jax.tree_util.tree_map_with_path(place, drawn, params)
