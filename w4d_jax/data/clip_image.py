"""An image as CLIP's vision transformer takes it, in the two ways that Wan2.1 is run.

diffusers, and with it Kinema4D, cuts out the middle square: of 720 columns a third is never
seen. Wan2.1's own code squeezes the whole image into the square.
"""

import numpy as np
from PIL import Image

from w4d_jax.types import InputError

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def cropped(image: np.ndarray, side: int = 224) -> np.ndarray:
    """u8[H,W,3] -> f32[side,side,3]: the shorter edge filtered to `side` (bicubic), the
    middle of the longer one. Equals CLIPImageProcessor."""
    _check(image)
    height, width = image.shape[:2]
    short = min(height, width)
    height, width = side * height // short, side * width // short
    small = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.asarray(small)[top : top + side, left : left + side]
    return _normalised(square / np.float32(255))


def squeezed(image: np.ndarray, side: int = 224) -> np.ndarray:
    """u8[H,W,3] -> f32[side,side,3]: both edges interpolated to `side`, without a filter.
    Equals Wan2.1's own code."""
    _check(image)
    rows, columns = (_cubic(side, n) for n in image.shape[:2])
    square = np.einsum("ih,jw,hwc->ijc", rows, columns, image / 255.0, optimize=True)
    return _normalised(square.astype(np.float32))


def _cubic(target: int, source: int) -> np.ndarray:
    """Interpolation of `source` samples at `target` points, f64[target,source]: Keys' cubic
    convolution with a = -0.75, edge samples repeated."""
    at = (np.arange(target) + 0.5) * source / target - 0.5
    base = np.floor(at)
    matrix = np.zeros((target, source))
    for step in (-1, 0, 1, 2):
        d = np.abs(at - base - step)
        near = 1.25 * d**3 - 2.25 * d**2 + 1
        far = -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3
        column = np.clip(base + step, 0, source - 1).astype(int)
        np.add.at(matrix, (np.arange(target), column), np.where(d <= 1, near, far))
    return matrix


def _normalised(square: np.ndarray) -> np.ndarray:
    return (square - MEAN) / STD


def _check(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise InputError(f"image: {image.dtype} {image.shape}, need u8 [H, W, 3]")
