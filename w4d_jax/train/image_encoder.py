"""The image encoder that a config asks for, and its weights out of a file."""

import dataclasses

from w4d_jax.nets.clip import ClipConfig, ImageEncoder
from w4d_jax.nets.clip_names import clip_from_torch
from w4d_jax.nets.files import read_safetensors
from w4d_jax.train.codec import as_drawn
from w4d_jax.train.config import filled
from w4d_jax.types import InputError


def build_image_encoder(config) -> tuple[ImageEncoder | None, str]:
    """The encoder, yet without weights, and the file that holds them; (None, "") for {}.

    config: {"clip": {"weights": a .safetensors, and the fields of ClipConfig}}. weights ""
    draws them from the seed: for tests only.
    """
    if not config:
        return None, ""
    if set(config) != {"clip"}:
        raise InputError(f"image {sorted(config)}: need clip, or nothing")
    sizes = dict(config["clip"])
    weights = sizes.pop("weights", "")
    return ImageEncoder(None, filled(ClipConfig, sizes, "image.clip")), weights


def load_image_encoder(path: str, drawn: ImageEncoder | None) -> ImageEncoder | None:
    """The encoder with the weights of the file at `path`, typed and laid as the drawn ones
    are; `drawn` itself where path is ""."""
    if not path or drawn is None:
        return drawn
    name = f"image.clip.weights {path}"
    try:
        params = clip_from_torch(drawn.config, read_safetensors(path))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return dataclasses.replace(drawn, params=as_drawn(params, drawn.params, name))
