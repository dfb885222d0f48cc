"""What Kinema4D's network is told beside the noise, from what is known beforehand.

The condition has M + C channels: M = stride_t mask channels (the video frames of a latent
frame), then the latent of a video that holds only the first image. Modalities are joined
along the width, RGB left and pointmap right.
"""

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.nets.grid import latent_shape

# The authors' statistics of pointmap latents, on top of the VAE's own normalisation.
POINTMAP_MEAN, POINTMAP_STD = -0.17, 1.36


def unit(image):
    """u8 -> f32 in [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1


def held(image, frames: int):
    """A video that repeats the image f[B,H,W,C] -> f[B,T,H,W,C]: every frame's tokens know
    the scene, which is what lets a small model learn."""
    return jnp.repeat(image[:, None], frames, 1)


def then_grey(image, frames: int):
    """The image, then mid-grey frames (0): the condition video of Wan2.1's kind."""
    return jnp.pad(image[:, None], ((0, 0), (0, frames - 1), (0, 0), (0, 0), (0, 0)))


def inpaint(image, known):
    """Fills what is unknown of f[...,H,W,C] smoothly from around it.

    known f[...,H,W,1], 1 or 0. By halving: at each size the unknown pixels take the next
    coarser picture's, which is the mean of what was known (pull-push; Gortler et al. 1996).
    Where nothing is known: 0.
    """
    H, W, C = image.shape[-3:]
    if H == W == 1:
        return known * image
    lead, even = image.shape[:-3], (H + H % 2, W + W % 2)
    margin = [(0, 0)] * len(lead) + [(0, H % 2), (0, W % 2), (0, 0)]

    def halved(x):
        blocks = (*lead, even[0] // 2, 2, even[1] // 2, 2, x.shape[-1])
        return jnp.pad(x, margin).reshape(blocks).mean((-4, -2))

    weight = halved(known)
    coarse = halved(known * image) / jnp.maximum(weight, 1e-6)
    coarse = inpaint(coarse, (weight > 0).astype(image.dtype))
    wide = jax.image.resize(coarse, (*lead, *even, C), "linear")[..., :H, :W, :]
    return jnp.where(known > 0, image, wide)


def uniform_pointmap(height: int, width: int) -> np.ndarray:
    """The constant ramp that stands in for the unknown first geometry, f32[H,W,3] in [0,1].

    x from left to right, y from top to bottom, z from 1 at the top to 0. The network sees
    2 x - 1 of it.
    """
    x, y = np.linspace(0, 1, width), np.linspace(0, 1, height)
    z = (1 - y) / (1 + 1e-8)
    grid = np.stack(np.broadcast_arrays(x[None], y[:, None], z[:, None]), -1)
    return grid.astype(np.float32)


def first_frame_mask(shape: tuple[int, int, int], channels: int) -> np.ndarray:
    """Which condition latents hold the first image: f32[t,h,2w,M] on a grid (t,h,w).

    Latent frame 0 is 1 for RGB and 0.5 for the pointmap, which is only the uniform ramp.
    """
    t, h, w = shape
    mask = np.zeros((t, h, 2 * w, channels), np.float32)
    mask[0, :, :w], mask[0, :, w:] = 1.0, 0.5
    return mask


def latent_mask(mask, stride: tuple[int, int, int]):
    """Robot mask in pixels [B,T,H,W] -> f32[B,t,h,w]: each cell's top left pixel, united
    over each group of frames; frame 0 is a group of its own."""
    _, T, H, W = mask.shape
    latent_shape(T, H, W, stride)  # refuses sizes that do not divide
    return _united(mask[:, :, :: stride[1], :: stride[2]].astype(jnp.float32), stride[0])


def cells_with(mask, stride: tuple[int, int, int]):
    """Which latent cells bool[B,t,h,w] hold a pixel of the mask bool[B,T,H,W]."""
    B, T, H, W = mask.shape
    _, h, w = latent_shape(T, H, W, stride)
    return _united(mask.reshape(B, T, h, stride[1], w, stride[2]).any((3, 5)), stride[0])


def _united(cells, p: int):
    """cells [B,T,h,w] of video frames -> [B,t,h,w], over p frames each but the first."""
    B, T, h, w = cells.shape
    later = cells[:, 1:].reshape(B, (T - 1) // p, p, h, w).max(2)
    return jnp.concatenate([cells[:, :1], later], 1)


def soften(key, mask, share: float = 0.1):
    """Training's soft mask: int(share x ones) of the ones, drawn without replacement over
    the whole batch, become 0.5, so that the network does not trust the mask blindly."""
    return soften_first(mask, jax.random.uniform(key, mask.shape), share)


def soften_first(mask, order, share: float = 0.1):
    """The same with the draw given: the ones that come first by `order` become 0.5."""
    ones = mask == 1
    rank = jnp.argsort(jnp.argsort(jnp.where(ones, order, jnp.inf).ravel()))
    chosen = rank.reshape(mask.shape) < jnp.floor(share * ones.sum())
    return jnp.where(ones & chosen, 0.5, mask)


def mask_channels(mask, channels: int):
    """f[B,t,h,w] -> f[B,t,h,w,M]: the reference repeats the robot's mask in all M."""
    return jnp.repeat(mask[..., None], channels, -1)


def scaled_pointmap(latent):
    """(z + 0.17) / 1.36: the reference's pointmap latents, at about unit variance."""
    return (latent - POINTMAP_MEAN) / POINTMAP_STD


def unscaled_pointmap(latent):
    """The inverse of `scaled_pointmap`, before decoding."""
    return latent * POINTMAP_STD + POINTMAP_MEAN
