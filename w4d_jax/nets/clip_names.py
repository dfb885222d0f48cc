"""Names of CLIP's vision transformer, for `nets/weights.py`: transformers' and Wan2.1's."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from w4d_jax.nets.clip import ClipConfig
from w4d_jax.nets.weights import LINEAR, NORM, SAME, Layout, Tensor, from_torch

# ours, transformers' CLIPVisionModel, Wan2.1's open-clip file, kind.
BLOCK = (
    ("norm_self", "layer_norm1", "norm1", NORM),
    ("q", "self_attn.q_proj", "attn.to_q", LINEAR),
    ("k", "self_attn.k_proj", "attn.to_k", LINEAR),
    ("v", "self_attn.v_proj", "attn.to_v", LINEAR),
    ("o", "self_attn.out_proj", "attn.proj", LINEAR),
    ("norm_ffn", "layer_norm2", "norm2", NORM),
    ("ffn_in", "mlp.fc1", "mlp.0", LINEAR),
    ("ffn_out", "mlp.fc2", "mlp.2", LINEAR),
)
NORMS = (
    ("norm_in", "pre_layrnorm", "pre_norm"),
    ("norm_out", "post_layernorm", "post_norm"),
)
TOKEN = Layout(lambda a: a.reshape(-1), lambda a: a[None, None])  # [1, 1, D]
TOKENS = Layout(lambda a: a[0], lambda a: a[None])  # [1, 1+hw, D]
QKV = ".attn.to_qkv."


def clip(
    config: ClipConfig, prefix: str = "vision_model.", original: bool = False
) -> tuple[Tensor, ...]:
    """Table of `clip.ClipVision`.

    prefix: "vision_model." in published files, "" as transformers 5 saves them. original:
    Wan2.1's own names, prefix "visual.", the fused projections taken apart (`visual_half`).
    """
    column = 2 if original else 1
    block = "transformer." if original else "encoder.layers."
    patch = _patch_matrix(config.patch)
    if original:
        stem = (
            Tensor("class", "cls_embedding", TOKEN),
            Tensor("position", "pos_embedding", TOKENS),
            Tensor("patch/kernel", "patch_embedding.weight", patch),
        )
    else:
        stem = (
            Tensor("class", "embeddings.class_embedding", SAME),
            Tensor("position", "embeddings.position_embedding.weight", SAME),
            Tensor("patch/kernel", "embeddings.patch_embedding.weight", patch),
        )
    last = config.layers - 1
    modules = [(row[0], row[column], NORM, 0) for row in NORMS]
    for row in BLOCK:
        modules.append((f"blocks/{row[0]}", f"{block}{{}}.{row[column]}", row[3], last))
        modules.append((f"last/{row[0]}", f"{block}{last}.{row[column]}", row[3], 0))
    rows = stem + tuple(
        Tensor(ours + our_leaf, theirs + their_leaf, layout, layers)
        for ours, theirs, kind, layers in modules
        for our_leaf, their_leaf, layout in kind
    )
    return tuple(row._replace(theirs=prefix + row.theirs) for row in rows)


def clip_from_torch(
    config: ClipConfig, tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Our tree, from any of the files: of transformers, with or without its prefix, or
    Wan2.1's own. InputError for anything else."""
    if any(name.startswith("visual.") for name in tensors):
        return from_torch(clip(config, "visual.", original=True), visual_half(tensors))
    return from_torch(clip(config), prefixed(tensors))


def prefixed(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A file of transformers in the names of the published ones."""
    if any(name.startswith("vision_model.") for name in tensors):
        return dict(tensors)
    return {f"vision_model.{name}": tensor for name, tensor in tensors.items()}


def visual_half(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of Wan2.1's open-clip file what sees: the text tower and the head of the contrastive
    loss left out, q, k and v apart."""
    seen = {}
    for name, tensor in tensors.items():
        if name.startswith("visual.") and name != "visual.head":
            parts = np.split(tensor, 3) if QKV in name else [tensor]
            names = [name.replace(QKV, f".attn.to_{x}.") for x in "qkv"[: len(parts)]]
            seen |= dict(zip(names, parts, strict=True))
    return seen


def _patch_matrix(side: int) -> Layout:
    """[out, in, h, w] as the matrix of a flattened patch."""
    return Layout(
        lambda a: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]),
        lambda a: a.reshape(side, side, -1, a.shape[1]).transpose(3, 2, 0, 1),
    )
