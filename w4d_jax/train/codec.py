"""The codec that a config asks for, and its weights."""

import dataclasses

from w4d_jax.nets.codec import Codec, CosineCodec, WanCodec
from w4d_jax.nets.vae import VAEConfig
from w4d_jax.train.config import filled
from w4d_jax.train.start import coder_weights
from w4d_jax.types import InputError


def build_codec(config) -> tuple[Codec, str]:
    """The codec, yet without weights, and where these lie. One of

    {"cosine": {"stride": ...}}
    {"wan": {"weights": diffusers' file or folder, Wan2.1_VAE.pth, or an imported folder,
    "dtype": "float32", "chunk": 1, and the fields of VAEConfig}}. weights "" draws them
    from the seed: for tests only, such a codec loses what it is given.
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
    """The codec with the weights at `path`, typed and laid as the drawn ones are; `drawn`
    itself where path is ""."""
    if not path or not isinstance(drawn, WanCodec):
        return drawn
    given = drawn.config, drawn.params, "codec.wan.weights"
    return dataclasses.replace(drawn, params=coder_weights(path, "vae", *given))
