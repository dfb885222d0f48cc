"""Masks, the uniform pointmap, and the scales of latents."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np

from w4d_jax.nets import condition, vae
from w4d_jax.parity.check import Check, compare
from w4d_jax.parity.golden import Arrays, last, load


def checks(folder: Path) -> Iterator[Check]:
    z, _, _ = load(folder, "masks")
    for i in count():
        if f"pixels_{i}" not in z:
            break
        yield from _mask(z, i)
    for name in (name for name in z if name.startswith("uniform_")):
        ours = condition.uniform_pointmap(*z[name].shape[:2])
        yield compare(name, ours, z[name], 1e-7)

    x = last(z["affine_in"])
    config = vae.VAEConfig(
        latent=x.shape[-1], mean=z["latents_mean"].tolist(), std=z["latents_std"].tolist()
    )
    for name, ours in (
        ("affine_pointmap_forward", condition.scaled_pointmap(x)),
        ("affine_pointmap_inverse", condition.unscaled_pointmap(x)),
        ("affine_wan_forward", vae.normalised(x, config)),
        ("affine_wan_inverse", vae.denormalised(x, config)),
    ):
        yield compare(name, ours, last(z[name]), 2e-6)


def _mask(z: Arrays, i: int) -> Iterator[Check]:
    """One robot: pixels to latent cells, the first frame's mask, the softened mask."""
    pixels, latent = z[f"pixels_{i}"][..., 0], last(z[f"latent_{i}"])[..., 0]
    h, w = latent.shape[2:]
    expected = last(z[f"first_frame_{i}"])
    channels = expected.shape[-1]  # as many as video frames to a latent frame
    stride = channels, pixels.shape[2] // h, pixels.shape[3] // w
    yield compare(f"latent_{i}", condition.latent_mask(pixels, stride), latent, 0)
    first = condition.first_frame_mask(latent.shape[1:], channels)
    first = np.broadcast_to(first, expected.shape)
    yield compare(f"first_frame_{i}", first, expected, 0)

    # Their draw as an order: the ones come in the order of their permutation.
    permutation = z[f"soft_permutation_{i}"]
    order = np.zeros(latent.size, np.float32)
    order[np.flatnonzero(latent)[permutation]] = np.arange(len(permutation))
    soft = condition.soften_first(latent, order.reshape(latent.shape))
    expected = last(z[f"soft_{i}"])
    both = np.concatenate([condition.mask_channels(soft, channels)] * 2, axis=3)
    yield compare(f"soft_{i}", both, expected, 0)
