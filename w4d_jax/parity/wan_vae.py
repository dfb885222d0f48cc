"""The video autoencoder: clips of several lengths, alone and two side by side."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from w4d_jax.nets import peer_config, vae
from w4d_jax.nets.condition import then_grey
from w4d_jax.nets.vae_names import vae as names
from w4d_jax.nets.weights import from_torch
from w4d_jax.parity.check import Check, compare
from w4d_jax.parity.golden import Arrays, jit, last, load

TOLERANCE = 1e-4


def checks(folder: Path) -> Iterator[Check]:
    z, entry, tensors = load(folder, "wan_vae")
    statistics = {key: entry[key] for key in ("latents_mean", "latents_std")}
    config = peer_config.vae(entry["vae"] | statistics)
    params = from_torch(names(config), tensors)
    coder = Coder(params, config, max(_lengths(z)))

    def against(name: str, ours) -> Check:
        return compare(name, ours, last(z[name]), TOLERANCE)

    for n in _lengths(z):
        mean, logvar = coder.encode(_video(z, f"clip_{n}_u8"))
        drawn = mean + jnp.exp(0.5 * logvar) * last(z[f"sample_{n}_eps"])
        yield against(f"encode_{n}_mode", mean)
        yield against(f"encode_{n}_logvar", logvar)
        yield against(f"encode_{n}_mode_normalised", vae.normalised(mean, config))
        yield against(f"sample_{n}", drawn)
        yield against(f"decode_{n}", coder.decode(last(z[f"decode_{n}_latent"])))

    # The longest also in chunks, as at full size.
    n = max(_lengths(z))
    mean, logvar = coder.encode(_video(z, f"clip_{n}_u8"), chunk=1)
    decoded = coder.decode(last(z[f"decode_{n}_latent"]), chunk=1)
    for name, ours in (
        (f"encode_{n}_mode", mean),
        (f"encode_{n}_logvar", logvar),
        (f"decode_{n}", decoded),
    ):
        yield against(name, ours)._replace(name=f"{name} in chunks")

    # Two clips side by side: one pass over both is not two passes.
    clips = [_video(z, f"joint_{side}_u8") for side in ("left", "right")]
    joint = coder.encode(np.concatenate(clips, 3))
    yield against("joint_encode_mode", joint.mean)
    yield against("joint_encode_logvar", joint.logvar)
    apart = [coder.encode(clip).mean for clip in clips]
    yield against("separate_encode_mode", jnp.concatenate(apart, 3))
    latent = last(z["joint_decode_latent"])
    yield against("joint_decode", coder.decode(latent))
    halves = np.split(latent, 2, axis=3)
    apart = [coder.decode(half) for half in halves]
    yield against("separate_decode", jnp.concatenate(apart, 3))

    first = np.concatenate([clip[:, 0] for clip in clips], 2)
    frames = 1 + (z["cond_encode_mode"].shape[2] - 1) * config.stride[0]
    yield against("cond_encode_mode", coder.encode(then_grey(first, frames)).mean)


class Coder:
    """Codes every clip at one length, grey frames behind its end: nothing looks ahead, and
    each length would be a program to compile."""

    def __init__(self, params, config: vae.VAEConfig, frames: int):
        self.frames, self.stride = frames, config.stride[0]
        self._encode = partial(jit(vae.encode, static_argnums=(1, 3)), params, config)
        self._decode = partial(jit(vae.decode, static_argnums=(1, 3)), params, config)

    def encode(self, video, chunk: int | None = None) -> vae.Posterior:
        kept = self._latents(video.shape[1])
        whole = self._encode(_padded(video, self.frames), chunk)
        return vae.Posterior(*(moment[:, :kept] for moment in whole))

    def decode(self, latent, chunk: int | None = None):
        kept = 1 + (latent.shape[1] - 1) * self.stride
        return self._decode(_padded(latent, self._latents(self.frames)), chunk)[:, :kept]

    def _latents(self, frames: int) -> int:
        return 1 + (frames - 1) // self.stride


def _padded(x, frames: int):
    behind = max(0, frames - x.shape[1])
    return jnp.pad(x, ((0, 0), (0, behind), (0, 0), (0, 0), (0, 0)))


def _lengths(z: Arrays) -> list[int]:
    return [int(name.split("_")[1]) for name in z if name.startswith("clip_")]


def _video(z: Arrays, name: str) -> np.ndarray:
    """Bytes -> f32[B,T,H,W,3] in [-1,1]."""
    return last((z[name] / 127.5 - 1).astype(np.float32))
