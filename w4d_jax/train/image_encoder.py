"""The image encoder that a config asks for, and its weights."""

import dataclasses

from w4d_jax.nets.clip import ClipConfig, ImageEncoder
from w4d_jax.train.config import filled
from w4d_jax.train.start import coder_weights
from w4d_jax.types import InputError


def build_image_encoder(config) -> tuple[ImageEncoder | None, str]:
    """The encoder, yet without weights, and where these lie; (None, "") for {}.

    config: {"clip": {"weights": transformers' file or folder, models_clip_*.pth, or an
    imported folder, and the fields of ClipConfig}}. weights "" draws them from the seed:
    for tests only.
    """
    if not config:
        return None, ""
    if set(config) != {"clip"}:
        raise InputError(f"image {sorted(config)}: need clip, or nothing")
    sizes = dict(config["clip"])
    weights = sizes.pop("weights", "")
    return ImageEncoder(None, filled(ClipConfig, sizes, "image.clip")), weights


def load_image_encoder(path: str, drawn: ImageEncoder | None) -> ImageEncoder | None:
    """The encoder with the weights at `path`, typed and laid as the drawn ones are; `drawn`
    itself where path is ""."""
    if not path or drawn is None:
        return drawn
    given = drawn.config, drawn.params, "image.clip.weights"
    return dataclasses.replace(drawn, params=coder_weights(path, "clip", *given))
