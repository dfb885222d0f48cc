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
    # Sizes are static: one program a shape, and the whole clip is the cheapest to compile.
    encode = partial(jit(vae.encode, static_argnums=(1, 3)), params, config)
    decode = partial(jit(vae.decode, static_argnums=(1, 3)), params, config)

    def against(name: str, ours) -> Check:
        return compare(name, ours, last(z[name]), TOLERANCE)

    lengths = [int(name.split("_")[1]) for name in z if name.startswith("clip_")]
    for n in lengths:
        # The longest also in chunks, as at full size.
        for chunk, suffix in [(None, ""), (1, " in chunks")][: 1 + (n == max(lengths))]:
            mean, logvar = encode(_video(z, f"clip_{n}_u8"), chunk)
            drawn = mean + jnp.exp(0.5 * logvar) * last(z[f"sample_{n}_eps"])
            for name, ours in (
                (f"encode_{n}_mode", mean),
                (f"encode_{n}_logvar", logvar),
                (f"encode_{n}_mode_normalised", vae.normalised(mean, config)),
                (f"sample_{n}", drawn),
                (f"decode_{n}", decode(last(z[f"decode_{n}_latent"]), chunk)),
            ):
                yield against(name, ours)._replace(name=name + suffix)

    # Two clips side by side: one pass over both is not two passes.
    clips = [_video(z, f"joint_{side}_u8") for side in ("left", "right")]
    joint = encode(np.concatenate(clips, 3), None)
    yield against("joint_encode_mode", joint.mean)
    yield against("joint_encode_logvar", joint.logvar)
    apart = [encode(clip, None).mean for clip in clips]
    yield against("separate_encode_mode", jnp.concatenate(apart, 3))
    latent = last(z["joint_decode_latent"])
    yield against("joint_decode", decode(latent, None))
    halves = np.split(latent, 2, axis=3)
    apart = [decode(half, None) for half in halves]
    yield against("separate_decode", jnp.concatenate(apart, 3))

    first = np.concatenate([clip[:, 0] for clip in clips], 2)
    frames = 1 + (z["cond_encode_mode"].shape[2] - 1) * config.stride[0]
    yield against("cond_encode_mode", encode(then_grey(first, frames), None).mean)


def _video(z: Arrays, name: str) -> np.ndarray:
    """Bytes -> f32[B,T,H,W,3] in [-1,1]."""
    return last((z[name] / 127.5 - 1).astype(np.float32))
