"""Sizes of models in the words of diffusers' config.json, both ways."""

from typing import Any

from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.vae import VAEConfig
from w4d_jax.types import InputError


def wan(entry: dict[str, Any]) -> DiTConfig:
    """What WanTransformer3DModel is built from."""
    fixed = {"qk_norm": "rms_norm_across_heads", "cross_attn_norm": True}
    _refuse_others(entry, fixed | {"pos_embed_seq_len": None})
    return DiTConfig(
        in_channels=entry["in_channels"],
        out_channels=entry["out_channels"],
        width=entry["num_attention_heads"] * entry["attention_head_dim"],
        heads=entry["num_attention_heads"],
        layers=entry["num_layers"],
        ffn=entry["ffn_dim"],
        patch=entry["patch_size"],
        frequencies=entry["freq_dim"],
        text_dim=entry["text_dim"],
        image_dim=entry.get("image_dim") or 0,
        eps=entry["eps"],
    )


def wan_entry(config: DiTConfig) -> dict[str, Any]:
    """The inverse of `wan`."""
    return {
        "_class_name": "WanTransformer3DModel",
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_dim,
        "num_layers": config.layers,
        "ffn_dim": config.ffn,
        "patch_size": list(config.patch),
        "freq_dim": config.frequencies,
        "text_dim": config.text_dim,
        "image_dim": config.image_dim or None,
        "added_kv_proj_dim": config.width if config.image_dim else None,
        "eps": config.eps,
        "qk_norm": "rms_norm_across_heads",
        "cross_attn_norm": True,
        "pos_embed_seq_len": None,
        "rope_max_seq_len": 1024,
    }


def vae(entry: dict[str, Any]) -> VAEConfig:
    """What AutoencoderKLWan is built from."""
    _refuse_others(entry, {"attn_scales": [], "is_residual": False, "patch_size": None})
    return VAEConfig(
        base=entry["base_dim"],
        multipliers=entry["dim_mult"],
        blocks=entry["num_res_blocks"],
        temporal=entry["temperal_downsample"],  # their spelling
        latent=entry["z_dim"],
        mean=entry["latents_mean"],
        std=entry["latents_std"],
    )


def vae_entry(config: VAEConfig) -> dict[str, Any]:
    """The inverse of `vae`."""
    return {
        "_class_name": "AutoencoderKLWan",
        "base_dim": config.base,
        "dim_mult": list(config.multipliers),
        "num_res_blocks": config.blocks,
        "temperal_downsample": list(config.temporal),
        "z_dim": config.latent,
        "latents_mean": list(config.mean),
        "latents_std": list(config.std),
        "attn_scales": [],
        "dropout": 0.0,
    }


def _refuse_others(entry: dict[str, Any], fixed: dict[str, Any]) -> None:
    """Settings that our networks hold at one value."""
    for name, need in fixed.items():
        if name in entry and entry[name] not in (need, None):
            raise InputError(f"config: {name}={entry[name]!r}, this network has {need!r}")
