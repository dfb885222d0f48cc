"""Images as CLIP's vision transformer takes them, in the two ways that Wan2.1 is run.

diffusers, and with it Kinema4D, cuts out the middle square: of 720 columns a third is never
seen. Wan2.1's own code squeezes the whole image into the square. Both are matrices on rows
and columns, so that the features of an image are one function of its pixels.
"""

import jax.numpy as jnp
import numpy as np

from w4d_jax.types import InputError

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def cropped(images, side: int = 224):
    """u8[B,H,W,3] -> f32[B,side,side,3]: the shorter edge filtered to `side`, the middle of
    the longer one. Equals CLIPImageProcessor, which rounds to bytes after each edge."""
    height, width = _size(images)
    short = min(height, width)
    rows, columns = side * height // short, side * width // short
    x = _rounded(_along_columns(filtered(columns, width), images.astype(jnp.float32)))
    x = _rounded(_along_rows(filtered(rows, height), x))
    top, left = (rows - side) // 2, (columns - side) // 2
    return _normalised(x[:, top : top + side, left : left + side])


def squeezed(images, side: int = 224):
    """u8[B,H,W,3] -> f32[B,side,side,3]: both edges interpolated to `side`, not filtered.
    Equals Wan2.1's own code."""
    height, width = _size(images)
    x = _along_columns(interpolated(side, width), images.astype(jnp.float32))
    return _normalised(_along_rows(interpolated(side, height), x))


def filtered(target: int, source: int) -> np.ndarray:
    """Pillow's bicubic: the cubic (a = -0.5) widened where samples get fewer, f32[target,
    source]."""
    at = (np.arange(target) + 0.5) * source / target
    away = np.arange(source) + 0.5 - at[:, None]
    weight = cubic(away / max(source / target, 1), -0.5)
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def interpolated(target: int, source: int) -> np.ndarray:
    """PyTorch's bicubic: the cubic (a = -0.75) on the four nearest samples, those at the
    edge repeated, f32[target,source]."""
    at = (np.arange(target) + 0.5) * source / target - 0.5
    matrix = np.zeros((target, source), np.float32)
    for step in (-1, 0, 1, 2):
        nearest = np.floor(at) + step
        column = np.clip(nearest, 0, source - 1).astype(int)
        np.add.at(matrix, (np.arange(target), column), cubic(at - nearest, -0.75))
    return matrix


def cubic(away, a: float):
    """Keys' cubic convolution kernel, zero from a distance of 2 on."""
    d = np.abs(away)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _along_columns(matrix, x):
    return jnp.einsum("jw,bhwc->bhjc", matrix, x, precision="highest")


def _along_rows(matrix, x):
    return jnp.einsum("ih,bhwc->biwc", matrix, x, precision="highest")


def _rounded(x):
    return jnp.clip(jnp.floor(x + 0.5), 0, 255)


def _normalised(x):
    return (x / 255 - MEAN) / STD


def _size(images) -> tuple[int, int]:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise InputError(f"images: {images.dtype} {images.shape}, need u8 [B, H, W, 3]")
    return images.shape[1:3]
