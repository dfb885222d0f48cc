"""Sizes of models in the words of others' config.json, both ways.

`entry` is such a file's content: of diffusers, of transformers, or of Wan2.1 itself.
"""

from typing import Any

from w4d_jax.nets.clip import ClipConfig
from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.text import TextConfig
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


def wan_original(entry: dict[str, Any]) -> DiTConfig:
    """Wan2.1's own WanModel. Widths that it does not say are fixed there."""
    _refuse_others(entry, {"qk_norm": True, "cross_attn_norm": True})
    return DiTConfig(
        in_channels=entry["in_dim"],
        out_channels=entry["out_dim"],
        width=entry["dim"],
        heads=entry["num_heads"],
        layers=entry["num_layers"],
        ffn=entry["ffn_dim"],
        patch=entry.get("patch_size", (1, 2, 2)),
        frequencies=entry["freq_dim"],
        text_dim=entry.get("text_dim", 4096),
        image_dim=entry.get("image_dim", 1280) if entry["model_type"] == "i2v" else 0,
        eps=entry["eps"],
    )


def wan_original_entry(config: DiTConfig) -> dict[str, Any]:
    """The inverse of `wan_original`."""
    return {
        "_class_name": "WanModel",
        "model_type": "i2v" if config.image_dim else "t2v",
        "in_dim": config.in_channels,
        "out_dim": config.out_channels,
        "dim": config.width,
        "num_heads": config.heads,
        "num_layers": config.layers,
        "ffn_dim": config.ffn,
        "patch_size": list(config.patch),
        "freq_dim": config.frequencies,
        "text_dim": config.text_dim,
        "text_len": 512,
        "eps": config.eps,
    } | ({"image_dim": config.image_dim} if config.image_dim not in (0, 1280) else {})


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


def umt5(entry: dict[str, Any]) -> TextConfig:
    """What UMT5EncoderModel is built from."""
    _refuse_others(entry, {"feed_forward_proj": "gated-gelu"})
    return TextConfig(
        vocabulary=entry["vocab_size"],
        width=entry["d_model"],
        heads=entry["num_heads"],
        head_dim=entry["d_kv"],
        layers=entry["num_layers"],
        ffn=entry["d_ff"],
        buckets=entry["relative_attention_num_buckets"],
        distance=entry["relative_attention_max_distance"],
        eps=entry["layer_norm_epsilon"],
    )


def umt5_entry(config: TextConfig) -> dict[str, Any]:
    """The inverse of `umt5`."""
    return {
        "architectures": ["UMT5EncoderModel"],
        "model_type": "umt5",
        "vocab_size": config.vocabulary,
        "d_model": config.width,
        "num_heads": config.heads,
        "d_kv": config.head_dim,
        "num_layers": config.layers,
        "d_ff": config.ffn,
        "relative_attention_num_buckets": config.buckets,
        "relative_attention_max_distance": config.distance,
        "layer_norm_epsilon": config.eps,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
        "tie_word_embeddings": False,
    }


def clip(entry: dict[str, Any]) -> ClipConfig:
    """What CLIPVisionModel is built from, or the half of CLIPModel that sees."""
    entry = entry.get("vision_config", entry)
    _refuse_others(entry, {"hidden_act": "gelu", "num_channels": 3})
    return ClipConfig(
        width=entry["hidden_size"],
        heads=entry["num_attention_heads"],
        layers=entry["num_hidden_layers"],
        ffn=entry["intermediate_size"],
        patch=entry["patch_size"],
        side=entry["image_size"],
        eps=entry["layer_norm_eps"],
    )


def clip_entry(config: ClipConfig) -> dict[str, Any]:
    """The inverse of `clip`."""
    return {
        "architectures": ["CLIPVisionModel"],
        "model_type": "clip_vision_model",
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "intermediate_size": config.ffn,
        "patch_size": config.patch,
        "image_size": config.side,
        "layer_norm_eps": config.eps,
        "hidden_act": "gelu",
        "num_channels": 3,
    }


def _refuse_others(entry: dict[str, Any], fixed: dict[str, Any]) -> None:
    """Settings that our networks hold at one value."""
    for name, need in fixed.items():
        if name in entry and entry[name] not in (need, None):
            raise InputError(f"config: {name}={entry[name]!r}, this network has {need!r}")
