"""Names and layouts of PyTorch checkpoints, two ways and total. numpy only.

A table is a tuple of `Tensor`s: where a leaf lives in our tree, what the checkpoint calls
it, and how the axes differ. `from_torch` and `to_torch` read it in either direction and
refuse anything it does not name. Blocks are stacked in our tree, one by one in theirs.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.kinema4d import LORA_TARGETS, Kinema4DConfig
from w4d_jax.types import InputError

# Present in some files and never used by the model; `sign` marks WristWorld's, umT5 has its
# embedding twice, and CLIP numbers its positions.
UNUSED = (
    r"(transformer\.)?blocks\.\d+\.(attn2\.norm_added_q|cross_attn\.norm_q_img)\.weight"
    r"|sign|encoder\.embed_tokens\.weight|(vision_model\.)?embeddings\.position_ids"
)


class Layout(NamedTuple):
    """How one tensor's axes differ; each way undoes the other exactly."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


class Tensor(NamedTuple):
    """One row of a table; `layers` > 0: theirs has `{}` for it, ours a leading axis."""

    ours: str  # "dit/blocks/self/q/kernel"
    theirs: str  # "blocks.{}.attn1.to_q.weight"
    layout: Layout
    layers: int = 0

    def names(self) -> list[str]:
        return [self.theirs.format(i) for i in range(self.layers)] or [self.theirs]


SAME = Layout(lambda a: a, lambda a: a)
MATRIX = Layout(np.transpose, np.transpose)  # [out, in]
PATCH = Layout(  # [out, in, t, h, w]
    lambda a: a.transpose(2, 3, 4, 1, 0), lambda a: a.transpose(4, 3, 0, 1, 2)
)
ROW = Layout(lambda a: a[0], lambda a: a[None])  # a leading axis of one
GRID = Layout(  # [1, C, t, h, w]
    lambda a: a[0].transpose(1, 2, 3, 0), lambda a: a.transpose(3, 0, 1, 2)[None]
)

# Kinds of module: our leaf, their leaf, layout.
LINEAR = (("/kernel", ".weight", MATRIX), ("/bias", ".bias", SAME))
CONV = (("/kernel", ".weight", PATCH), ("/bias", ".bias", SAME))
NORM = (("/scale", ".weight", SAME), ("/bias", ".bias", SAME))
RMS = (("/scale", ".weight", SAME),)

# ours, diffusers, Wan2.1's own .pth, kind. Wan's norm3 is diffusers' norm2.
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
        *_rows([(row[0], row[column], row[3]) for row in stem]),
        *_rows([(row[0], row[column], row[3]) for row in blocks], config.layers),
    )


def kinema4d_added(config: Kinema4DConfig) -> tuple[Tensor, ...]:
    """Table of what Kinema4D adds to Wan: the keys of its `added_weights.safetensors`."""
    return _rows(ROBOT + (ROBOT_ACT if config.variant == "act" else ()))


def kinema4d(config: Kinema4DConfig) -> tuple[Tensor, ...]:
    """Table of `kinema4d.Kinema4D`, and of the text embedder that its checkpoints carry and
    the model never uses."""
    return wan(config.dit) + kinema4d_added(config)


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


def from_torch(
    table: tuple[Tensor, ...], tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Checkpoint -> our tree, values and dtypes untouched. `tensors` may load lazily: one
    tensor is read at a time, and only the stack that it goes to is held besides.

    Names that the table lacks, or that the file lacks, are an InputError listing them.
    """
    known = {name for row in table for name in row.names()}
    unknown = [n for n in tensors if n not in known and not re.fullmatch(UNUSED, n)]
    missing = sorted(known - set(tensors))
    if unknown or missing:
        raise InputError(
            f"checkpoint: {len(missing)} tensors missing ({_some(missing)}), "
            f"{len(unknown)} unknown ({_some(unknown)}); is it another model?"
        )
    tree: dict[str, Any] = {}
    for row in table:
        *path, leaf = row.ours.split("/")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = _read(row, tensors)
    return tree


def to_torch(table: tuple[Tensor, ...], tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our tree -> checkpoint, the exact inverse of `from_torch`."""
    leaves = dict(_leaves(tree))
    known = {row.ours for row in table}
    unknown, missing = sorted(set(leaves) - known), sorted(known - set(leaves))
    if unknown or missing:
        raise InputError(
            f"parameters: {len(missing)} missing ({_some(missing)}), "
            f"{len(unknown)} without a name there ({_some(unknown)})"
        )
    tensors = {}
    for row in table:
        leaf = np.asarray(leaves[row.ours])
        if row.layers and len(leaf) != row.layers:
            raise InputError(f"{row.ours}: {len(leaf)} layers, need {row.layers}")
        for name, value in zip(row.names(), leaf if row.layers else [leaf], strict=True):
            tensors[name] = np.ascontiguousarray(row.layout.to_theirs(value))
    return tensors


def _rows(modules, layers: int = 0) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(ours + our_leaf, theirs + their_leaf, layout, layers)
        for ours, theirs, kind in modules
        for our_leaf, their_leaf, layout in kind
    )


def _read(row: Tensor, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    first = row.layout.to_ours(np.asarray(tensors[row.names()[0]]))
    if not row.layers:
        return np.ascontiguousarray(first)
    stack = np.empty((row.layers, *first.shape), first.dtype)
    for i, name in enumerate(row.names()):
        value = row.layout.to_ours(np.asarray(tensors[name]))
        if (value.shape, value.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"checkpoint: {name} is {value.dtype}{value.shape} (our axes), layer 0 "
                f"{first.dtype}{first.shape}"
            )
        stack[i] = value
    return stack


def _leaves(tree: Mapping[str, Any], prefix: str = ""):
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "none"
