"""Names of the video transformers and of what stands on them, for `nets/weights.py`.

Wan2.1 in diffusers' names and in its own; what Kinema4D adds; low-rank pairs.
"""

import re

from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.kinema4d import LORA_TARGETS, Kinema4DConfig
from w4d_jax.nets.weights import (
    CONV,
    GRID,
    LINEAR,
    MATRIX,
    NORM,
    RMS,
    ROW,
    SAME,
    Tensor,
    rows,
)

# ours, diffusers, Wan2.1's own files, kind. Wan's norm3 is diffusers' norm2.
BLOCK = (
    ("modulation", "scale_shift_table", "modulation", (("", "", ROW),)),
    ("self/q", "attn1.to_q", "self_attn.q", LINEAR),
    ("self/k", "attn1.to_k", "self_attn.k", LINEAR),
    ("self/v", "attn1.to_v", "self_attn.v", LINEAR),
    ("self/o", "attn1.to_out.0", "self_attn.o", LINEAR),
    ("self/norm_q", "attn1.norm_q", "self_attn.norm_q", RMS),
    ("self/norm_k", "attn1.norm_k", "self_attn.norm_k", RMS),
    ("norm_cross", "norm2", "norm3", NORM),
    ("cross/q", "attn2.to_q", "cross_attn.q", LINEAR),
    ("cross/k", "attn2.to_k", "cross_attn.k", LINEAR),
    ("cross/v", "attn2.to_v", "cross_attn.v", LINEAR),
    ("cross/o", "attn2.to_out.0", "cross_attn.o", LINEAR),
    ("cross/norm_q", "attn2.norm_q", "cross_attn.norm_q", RMS),
    ("cross/norm_k", "attn2.norm_k", "cross_attn.norm_k", RMS),
    ("ffn_in", "ffn.net.0.proj", "ffn.0", LINEAR),
    ("ffn_out", "ffn.net.2", "ffn.2", LINEAR),
)
BLOCK_IMAGE = (
    ("cross/k_image", "attn2.add_k_proj", "cross_attn.k_img", LINEAR),
    ("cross/v_image", "attn2.add_v_proj", "cross_attn.v_img", LINEAR),
    ("cross/norm_k_image", "attn2.norm_added_k", "cross_attn.norm_k_img", RMS),
)
STEM = (
    ("dit/patch", "patch_embedding", "patch_embedding", CONV),
    (
        "dit/time/in",
        "condition_embedder.time_embedder.linear_1",
        "time_embedding.0",
        LINEAR,
    ),
    (
        "dit/time/out",
        "condition_embedder.time_embedder.linear_2",
        "time_embedding.2",
        LINEAR,
    ),
    ("dit/time/modulation", "condition_embedder.time_proj", "time_projection.1", LINEAR),
    ("text/in", "condition_embedder.text_embedder.linear_1", "text_embedding.0", LINEAR),
    ("text/out", "condition_embedder.text_embedder.linear_2", "text_embedding.2", LINEAR),
    ("dit/head/modulation", "scale_shift_table", "head.modulation", (("", "", ROW),)),
    ("dit/head/out", "proj_out", "head.head", LINEAR),
)
STEM_IMAGE = (
    (
        "dit/image/norm_in",
        "condition_embedder.image_embedder.norm1",
        "img_emb.proj.0",
        NORM,
    ),
    (
        "dit/image/in",
        "condition_embedder.image_embedder.ff.net.0.proj",
        "img_emb.proj.1",
        LINEAR,
    ),
    (
        "dit/image/out",
        "condition_embedder.image_embedder.ff.net.2",
        "img_emb.proj.3",
        LINEAR,
    ),
    (
        "dit/image/norm_out",
        "condition_embedder.image_embedder.norm2",
        "img_emb.proj.4",
        NORM,
    ),
)
ROBOT = (
    ("domain", "learnable_domain_embeddings", (("", "", SAME),)),
    ("robot_latent", "arm_cond_proj", LINEAR),
    ("robot_tokens/patch", "patch_embedding_arm", CONV),
    ("robot_tokens/norm", "arm_ln", NORM),
    ("robot_tokens/position", "arm_pos_emb", (("", "", GRID),)),
    ("robot_tokens/out", "arm_patch_proj", LINEAR),
)
ROBOT_ACT = (("robot_tokens/domain", "arm_domain_emb", (("", "", SAME),)),)


def wan(config: DiTConfig, original: bool = False) -> tuple[Tensor, ...]:
    """Table of `dit.Wan`: the names of diffusers, or those of Wan2.1's own files."""
    blocks = [
        (f"dit/blocks/{ours}", f"blocks.{{}}.{theirs}", f"blocks.{{}}.{own}", kind)
        for ours, theirs, own, kind in BLOCK + (BLOCK_IMAGE if config.image_dim else ())
    ]
    stem = STEM + (STEM_IMAGE if config.image_dim else ())
    column = 2 if original else 1
    return (
        *rows([(row[0], row[column], row[3]) for row in stem]),
        *rows([(row[0], row[column], row[3]) for row in blocks], config.layers),
    )


def kinema4d_added(variant: str) -> tuple[Tensor, ...]:
    """Table of what Kinema4D adds to Wan: the keys of its `added_weights.safetensors`."""
    return rows(ROBOT + (ROBOT_ACT if variant == "act" else ()))


def kinema4d(config: Kinema4DConfig) -> tuple[Tensor, ...]:
    """Table of `kinema4d.Kinema4D`, and of the text embedder that its checkpoints carry and
    the model never uses."""
    return wan(config.dit) + kinema4d_added(config.variant)


def lora(config: DiTConfig, prefix: str = "transformer.") -> tuple[Tensor, ...]:
    """Table of low-rank pairs in PEFT's names, on the projections that Kinema4D adapts."""
    return tuple(
        Tensor(
            f"{path}/{ours}",
            prefix + row.theirs.replace("weight", theirs),
            MATRIX,
            row.layers,
        )
        for row in wan(config)
        if (path := row.ours.removesuffix("/kernel")) != row.ours
        and re.fullmatch(LORA_TARGETS, path)
        for ours, theirs in (("a", "lora_A.weight"), ("b", "lora_B.weight"))
    )
