"""Videos longer than a model makes: overlapping windows, denoised in step.

Where windows overlap they hold the same latent frames, moved by one velocity: the mean of
what each of them says, weighted towards its middle (arXiv 2302.08113, here along time). So
nothing is left to blend afterwards, and one latent of the whole is decoded without a seam.

Frame 0 of a window stands for one video frame, where the whole has a group of `stride`. It
is the window's own, seen by its other frames; only that of window 0 is part of the whole.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from w4d_jax.types import InputError


class Windows(NamedTuple):
    """K windows of t latent frames each, on a whole of `total`."""

    starts: tuple[int, ...]  # the latent frame of the whole at which a window's 0 lies
    length: int
    total: int

    @property
    def frames(self) -> np.ndarray:
        """i64[K,t]: where each window's frames lie in the whole."""
        return np.add.outer(np.array(self.starts), np.arange(self.length))

    @property
    def owners(self) -> np.ndarray:
        """i64[K,t]: the same, but other numbers for the frames that are no part of it."""
        owners = self.frames
        owners[1:, 0] = self.total + np.arange(1, len(self.starts))
        return owners

    @property
    def mixing(self) -> np.ndarray:
        """f32[K,t,K,t]: the weight of each window's frame in the mean at another's."""
        owner, i = self.owners, np.arange(self.length)
        tent = np.maximum(np.minimum(i, self.length - i), 1)
        weight = (owner[:, :, None, None] == owner) * tent
        return (weight / weight.sum((2, 3), keepdims=True)).astype(np.float32)

    def cut(self, x):
        """f[B,T,...] -> f[K,B,t,...]."""
        return jnp.stack([x[:, at] for at in self.frames])

    def mixed(self, x):
        """f[K,B,t,...] -> the same, alike wherever windows hold the same frame."""
        return jnp.einsum("ktlu,lbu...->kbt...", self.mixing, x, precision="highest")

    def joined(self, x):
        """f[K,B,t,...], alike as `mixed` leaves it -> the whole f[B,T,...]."""
        holders = [np.argwhere(self.owners == frame)[0] for frame in range(self.total)]
        return jnp.stack([x[k, :, i] for k, i in holders], axis=1)


def windows(total: int, length: int, overlap: int) -> Windows:
    """Windows of `length` latent frames over `total`, neighbours sharing `overlap` or more.

    overlap 0 sets them side by side, as the reference does: with seams.
    """
    if total == length:
        return Windows((0,), length, total)
    if total < length:
        raise InputError(f"{total} latent frames: need {length}, a window, or more")
    if not 0 <= overlap <= length - 2:
        raise InputError(f"overlap={overlap}: need 0 to {length - 2} latent frames")
    last = total - length
    return Windows((*range(0, last, length - 1 - overlap), last), length, total)
