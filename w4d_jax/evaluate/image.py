"""PSNR and SSIM of 8-bit videos, frame by frame, over the pixels of a mask.

On whole frames both are scikit-image's numbers (its `structural_similarity` with
gaussian_weights, sigma 1.5, use_sample_covariance=False: the form of Wang et al. 2004).
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from w4d_jax.evaluate.scope import frame_mean, paste
from w4d_jax.types import InputError

# Rounding to 8 bits alone makes this mean square error, so PSNR ends at 58.9 dB instead of
# infinity, which no average survives.
ROUNDING = 1 / 12

SIGMA = 1.5
RADIUS = 5  # the window of 11 pixels


def psnr(prediction, truth, mask):
    """Peak signal to noise, dB. u8[T,H,W,3] twice, mask bool[T,H,W] -> f[T]."""
    error = (prediction.astype(np.float64) - truth) ** 2
    mse = frame_mean(error.mean(-1), mask)
    return 10 * np.log10(255**2 / np.maximum(mse, ROUNDING))


def ssim(prediction, truth, mask):
    """Structural similarity, mean of the channels. u8[T,H,W,3], bool[T,H,W] -> f[T].

    Only pixels whose whole window lies in the image count. Outside the mask the windows see
    the truth in both.
    """
    height, width = mask.shape[1:]
    if min(height, width) <= 2 * RADIUS:
        raise InputError(
            f"SSIM: frames of {height}x{width}, need {2 * RADIUS + 1} or more a side"
        )
    values = ssim_map(paste(prediction, truth, mask), truth)
    inner = (slice(None), slice(RADIUS, height - RADIUS), slice(RADIUS, width - RADIUS))
    return frame_mean(values[inner], mask[inner])


def ssim_map(a, b):
    """SSIM at every pixel, u8[T,H,W,3] twice -> f64[T,H,W], mean of the channels:

    (2 ma mb + c1) (2 cov + c2) / ((ma² + mb² + c1) (va + vb + c2)), with the means,
    variances and covariance of the pixel's window.
    """

    def blur(x):
        return gaussian_filter(x, (0, SIGMA, SIGMA, 0), radius=(0, RADIUS, RADIUS, 0))

    a, b = a.astype(np.float64), b.astype(np.float64)
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    cov = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    value = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return (value / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean(-1)
