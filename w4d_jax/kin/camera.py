"""Pinhole imaging: depth <-> pointmap, world <-> pixels. Exact inverses of each other."""

import jax.numpy as jnp


def pixel_rays(K, height: int, width: int):
    """Camera-frame directions with z = 1 through pixel centres. K f[3,3] -> f[H,W,3]."""
    u = jnp.arange(width, dtype=jnp.float32) + 0.5
    v = jnp.arange(height, dtype=jnp.float32) + 0.5
    y = (v - K[1, 2]) / K[1, 1]
    x = (u[None, :] - K[0, 2] - K[0, 1] * y[:, None]) / K[0, 0]
    return jnp.stack([x, jnp.broadcast_to(y[:, None], x.shape), jnp.ones_like(x)], -1)


def pointmap(depth, K):
    """depth f[...,H,W] metres, K f[3,3] -> camera-frame points f[...,H,W,3]; 0 -> 0."""
    return depth[..., None] * pixel_rays(K, *depth.shape[-2:])


def project(x, K):
    """Camera-frame points f[...,3] -> (u, v) f[...,2] pixels. Meaningful for z > 0 only."""
    uvw = jnp.einsum("ij,...j->...i", K, x, precision="highest")
    return uvw[..., :2] / uvw[..., 2:]


def to_world(points, cam_from_world):
    """Camera-frame points f[T,H,W,3], pose f[4,4] or f[T,4,4] -> world f[T,H,W,3]."""
    R, t = cam_from_world[..., :3, :3], cam_from_world[..., :3, 3]
    R, t = (
        jnp.broadcast_to(a, (points.shape[0], *a.shape[-n:])) for a, n in ((R, 2), (t, 1))
    )
    return jnp.einsum("tji,thwj->thwi", R, points - t[:, None, None], precision="highest")


def to_camera(points, cam_from_world):
    """World points f[T,H,W,3], pose f[4,4] or f[T,4,4] -> camera frame f[T,H,W,3]."""
    R, t = cam_from_world[..., :3, :3], cam_from_world[..., :3, 3]
    R, t = (
        jnp.broadcast_to(a, (points.shape[0], *a.shape[-n:])) for a, n in ((R, 2), (t, 1))
    )
    return jnp.einsum("tij,thwj->thwi", R, points, precision="highest") + t[:, None, None]


def ground_depth(K, cam_from_world, limit, size: tuple[int, int], altitude: float = 0.0):
    """Depth of the world's plane z = altitude, `limit` where the ray meets it later or
    never, and everywhere for a camera below it.

    K f[3,3], cam_from_world f[4,4], limit f[] metres; size: H, W -> f[H,W] metres.
    """
    up, origin = cam_from_world[:3, 2], cam_from_world[:3, 3]
    down = -jnp.einsum("hwi,i->hw", pixel_rays(K, *size), up, precision="highest")
    eye = -jnp.dot(up, origin, precision="highest") - altitude  # height over the plane
    met = (eye > 0) & (down * limit > eye)
    return jnp.where(met, eye / jnp.maximum(down, 1e-9), limit)
