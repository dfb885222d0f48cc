"""How like a track's feature the maps are around where it is: windows of correlations."""

import jax.numpy as jnp
import numpy as np
from jax import lax, vmap


def halved(maps, levels: int) -> list:
    """Maps f[B,V,h,w,C] and `levels` - 1 more, each of the means of 2 x 2 cells."""
    pyramid = [maps]
    for _ in range(levels - 1):
        window = (1, 1, 2, 2, 1)
        total = lax.reduce_window(pyramid[-1], 0.0, lax.add, window, window, "VALID")
        pyramid.append(total / 4)
    return pyramid


def correlations(pyramid: list, features, at, radius: int):
    """features f[B,V,N,C] of tracks at f[B,V,N,2] (x, y in cells of the finest map, centres
    at integers) -> f[B,V,N,levels (2r+1)^2]: scaled products with the maps around.

    Level by level; in a window x moves slowly and y fast. Outside a map there are zeros.
    The correlation of a sample between cells is the sample of their correlations, and the
    offsets of a window are whole cells: so (2r+2)^2 cells suffice, and one fraction.
    """
    root = np.sqrt(features.shape[-1]).astype(np.float32)
    found = []
    for level, maps in enumerate(pyramid):
        h, w = maps.shape[2:4]
        # The reference's sampler sees the only row or column of a map wherever it looks.
        many = np.array([w > 1, h > 1])
        place = at / 2**level * many
        base = jnp.floor(place)
        step = np.arange(-radius, radius + 2)
        x, y = (
            base[..., i, None].astype(int) + step * many[i] for i in (0, 1)
        )  # [B,V,N,2r+2]
        inside = ((x >= 0) & (x < w))[..., :, None] & ((y >= 0) & (y < h))[..., None, :]
        cells = _cells(maps, x.clip(0, w - 1), y.clip(0, h - 1))
        like = jnp.einsum("bvnxyc,bvnc->bvnxy", cells, features) / root
        like = jnp.where(inside, like, 0.0)
        fx, fy = (f[..., None, None] for f in jnp.moveaxis(place - base, -1, 0))
        like = like[..., :-1, :] * (1 - fx) + like[..., 1:, :] * fx
        like = like[..., :-1] * (1 - fy) + like[..., 1:] * fy
        found.append(like.reshape(*like.shape[:3], -1))
    return jnp.concatenate(found, -1)


def sample(maps, at):
    """maps f[B,h,w,C] at f[B,N,2] (x, y) -> f[B,N,C]: bilinear; outside, the border."""
    h, w = maps.shape[1:3]
    at = jnp.clip(at, 0, np.array([w - 1, h - 1]))
    low = jnp.floor(at).astype(int)
    high = jnp.minimum(low + 1, np.array([w - 1, h - 1]))
    fx, fy = (f[..., None] for f in jnp.moveaxis(at - low, -1, 0))

    def cell(x, y):
        return vmap(lambda m, x, y: m[y, x])(maps, x[..., 0], y[..., 1])

    top = cell(low, low) * (1 - fx) + cell(high, low) * fx
    bottom = cell(low, high) * (1 - fx) + cell(high, high) * fx
    return top * (1 - fy) + bottom * fy


def _cells(maps, x, y):
    """maps f[B,V,h,w,C], x y i[B,V,N,K] -> f[B,V,N,K,K,C], by x then y."""
    return vmap(vmap(lambda m, x, y: m[y[:, None, :], x[:, :, None]]))(maps, x, y)
