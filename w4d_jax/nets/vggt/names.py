"""Names of VGGT-1B's and WristWorld's checkpoints, for `nets/weights.py`."""

import numpy as np

from w4d_jax.nets.vae_names import FRAME
from w4d_jax.nets.vggt.config import (
    DenseConfig,
    PoseConfig,
    TrackConfig,
    VGGTConfig,
    WristConfig,
)
from w4d_jax.nets.weights import LINEAR, NORM, ROW, SAME, Layout, Tensor, rows
from w4d_jax.types import InputError

IMAGE = Layout(  # [out, in, h, w]
    lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)
)
PIXEL = Layout(lambda a: a[..., 0, 0].T, lambda a: a.T[..., None, None])  # [out, in, 1, 1]
SPREAD = Layout(  # [in, out, h, w]
    lambda a: a.transpose(0, 2, 3, 1), lambda a: a.transpose(0, 3, 1, 2)
)
STACK = Layout(  # [q out; k out; v out, in]
    lambda a: a.reshape(3, -1, a.shape[-1]).swapaxes(1, 2),
    lambda a: a.swapaxes(1, 2).reshape(-1, a.shape[1]),
)
STACK1 = Layout(lambda a: a.reshape(3, -1), np.ravel)
ONE = Layout(lambda a: a[0, 0], lambda a: a[None, None])  # two leading axes of one
PAIR = Layout(lambda a: a[0, :, 0], lambda a: a[None, :, None])  # [1, 2, 1, C]

# Kinds of module: our leaf, their leaf, layout.
CONV = (("/kernel", ".weight", IMAGE), ("/bias", ".bias", SAME))
CONV1 = (("/kernel", ".weight", PIXEL), ("/bias", ".bias", SAME))
PATCH = (("/kernel", ".weight", FRAME), ("/bias", ".bias", SAME))
UPSAMPLE = (("/kernel", ".weight", SPREAD), ("/bias", ".bias", SAME))
QKV = (("/kernel", ".qkv.weight", STACK), ("/bias", ".qkv.bias", STACK1))
IN_PROJ = (("/kernel", ".in_proj_weight", STACK), ("/bias", ".in_proj_bias", STACK1))
SCALE = (("", ".gamma", SAME),)


def vggt(config: VGGTConfig) -> tuple[Tensor, ...]:
    """Table of `VGGT` with the heads that the config has.

    InputError where it has what no published file does.
    """
    views = config.wrist.views if config.wrist else 0
    heads = filter(None, (config.depth, config.point))
    fine = next((head.fine for head in heads if head.fine), ())
    if config.stem or views or fine:
        raise InputError(
            f"stem={config.stem}, wrist.views={views}, fine={fine}: published files name "
            "no such layers; need stem=(), wrist.views=0 and fine=()"
        )
    table = _aggregator(config)
    if config.camera:
        table += _refine("camera/", "camera_head.", config.camera)
    for name, dense in (("depth", config.depth), ("point", config.point)):
        if dense:
            table += _dense(f"{name}/", f"{name}_head.", dense)
    if config.track:
        table += _track("track/", "track_head.", config.track)
    if config.wrist:
        table += _wrist("wrist/", "wrist_head.", config.wrist)
    return table


def _aggregator(config: VGGTConfig) -> tuple[Tensor, ...]:
    ours, theirs = "aggregator/encoder/", "aggregator.patch_embed."
    table = (
        Tensor("aggregator/camera", "aggregator.camera_token", PAIR),
        Tensor("aggregator/register", "aggregator.register_token", ROW),
        Tensor(f"{ours}class", f"{theirs}cls_token", ONE),
        Tensor(f"{ours}position", f"{theirs}pos_embed", ROW),
        Tensor(f"{ours}register", f"{theirs}register_tokens", ROW),
        Tensor(f"{ours}mask", f"{theirs}mask_token", ROW),
    )
    ends = (
        (f"{ours}patch", f"{theirs}patch_embed.proj", PATCH),
        (f"{ours}norm", f"{theirs}norm", NORM),
    )
    table += rows(ends) + _blocks(
        f"{ours}blocks/", f"{theirs}blocks.{{}}.", config.encoder_layers
    )
    for part in ("frame", "global"):
        ours, theirs = f"aggregator/blocks/{part}/", f"aggregator.{part}_blocks.{{}}."
        norms = (
            (f"{ours}attention/norm_q", f"{theirs}attn.q_norm", NORM),
            (f"{ours}attention/norm_k", f"{theirs}attn.k_norm", NORM),
        )
        table += _blocks(ours, theirs, config.layers) + rows(norms, config.layers)
    return table


def _refine(ours: str, theirs: str, config: PoseConfig) -> tuple[Tensor, ...]:
    modules = (
        (f"{ours}token_norm", f"{theirs}token_norm", NORM),
        (f"{ours}trunk_norm", f"{theirs}trunk_norm", NORM),
        (f"{ours}embed", f"{theirs}embed_pose", LINEAR),
        (f"{ours}modulation", f"{theirs}poseLN_modulation.1", LINEAR),
        *_mlp(f"{ours}branch", f"{theirs}pose_branch"),
    )
    return (
        Tensor(f"{ours}empty", f"{theirs}empty_pose_tokens", ONE),
        *rows(modules),
        *_blocks(f"{ours}trunk/", f"{theirs}trunk.{{}}.", config.layers),
    )


def _wrist(ours: str, theirs: str, config: WristConfig) -> tuple[Tensor, ...]:
    table = _refine(f"{ours}refine/", theirs, config.pose)
    table += (Tensor(f"{ours}gather/query", f"{theirs}token_query", ROW),)
    last = config.layers - 1
    for name, number, layers in (("layers", "{}", last), ("last", last, 0)):
        our = f"{ours}gather/{name}/"
        their = f"{theirs}token_aggregation_layers.{number}."
        modules = (
            *_attention(f"{our}attention", f"{their}attention"),
            (f"{our}norm1", f"{their}norm1", NORM),
            *_mlp(f"{our}mlp", f"{their}mlp"),
            (f"{our}norm2", f"{their}norm2", NORM),
        )
        table += rows(modules, layers)
    return table


def _dense(ours: str, theirs: str, config: DenseConfig) -> tuple[Tensor, ...]:
    modules = (
        (f"{ours}shrink", f"{theirs}scratch.output_conv1", CONV),
        (f"{ours}out1", f"{theirs}scratch.output_conv2.0", CONV),
        (f"{ours}out2", f"{theirs}scratch.output_conv2.2", CONV1),
    )
    return _pyramid(f"{ours}pyramid/", theirs, config) + rows(modules)


def _pyramid(ours: str, theirs: str, config: DenseConfig) -> tuple[Tensor, ...]:
    """Our resolutions count from 0, theirs from 1; the coarsest has nothing at its side."""
    modules = [
        (f"{ours}norm", f"{theirs}norm", NORM),
        (f"{ours}fit0", f"{theirs}resize_layers.0", UPSAMPLE),
        (f"{ours}fit1", f"{theirs}resize_layers.1", UPSAMPLE),
        (f"{ours}fit3", f"{theirs}resize_layers.3", CONV),
    ]
    for i in range(len(config.channels)):
        join, fuse = f"{ours}join{i}", f"{theirs}scratch.refinenet{i + 1}."
        modules += [
            (f"{ours}project{i}", f"{theirs}projects.{i}", CONV1),
            (f"{ours}lateral{i}", f"{theirs}scratch.layer{i + 1}_rn", CONV[:1]),
            (f"{join}_out", f"{fuse}out_conv", CONV1),
        ]
        for k in ("conv1", "conv2"):
            modules += [(f"{join}/{k}", f"{fuse}resConfUnit2.{k}", CONV)]
            if i < 3:
                modules += [(f"{join}_side/{k}", f"{fuse}resConfUnit1.{k}", CONV)]
    return rows(modules)


def _track(ours: str, theirs: str, config: TrackConfig) -> tuple[Tensor, ...]:
    features, extractor = f"{ours}features/", f"{theirs}feature_extractor."
    table = _pyramid(f"{features}pyramid/", extractor, config.dense)
    ours, theirs = f"{ours}tracker/", f"{theirs}tracker."
    update, former = f"{ours}update/", f"{theirs}updateformer."
    modules = (
        (f"{features}shrink", f"{extractor}scratch.output_conv1", CONV),
        (f"{ours}map_norm", f"{theirs}fmap_norm", NORM),
        *_mlp(f"{ours}corr", f"{theirs}corr_mlp"),
        (f"{ours}feature_norm", f"{theirs}ffeat_norm", NORM),
        (f"{ours}feature", f"{theirs}ffeat_updater.0", LINEAR),
        (f"{ours}visible", f"{theirs}vis_predictor.0", LINEAR),
        (f"{ours}sure", f"{theirs}conf_predictor.0", LINEAR),
        (f"{update}norm_in", f"{former}input_norm", NORM),
        (f"{update}in", f"{former}input_transform", LINEAR),
        (f"{update}norm_out", f"{former}output_norm", NORM),
        (f"{update}out", f"{former}flow_head", LINEAR),
    )
    table += rows(modules)
    table += (
        Tensor(f"{ours}role", f"{theirs}query_ref_token", ROW),
        Tensor(f"{update}virtual", f"{former}virual_tracks", ROW),
    )
    for name, part, attention in (
        ("time", "time_blocks", "attn"),
        ("virtual", "space_virtual_blocks", "attn"),
        ("virtual_from_points", "space_virtual2point_blocks", "cross_attn"),
        ("points_from_virtual", "space_point2virtual_blocks", "cross_attn"),
    ):
        our, their = f"{update}layers/{name}/", f"{former}{part}.{{}}."
        modules = [
            (f"{our}norm1", f"{their}norm1", NORM),
            *_attention(f"{our}attention", f"{their}{attention}"),
            (f"{our}norm2", f"{their}norm2", NORM),
            *_mlp(f"{our}mlp", f"{their}mlp"),
        ]
        if attention == "cross_attn":
            modules += [(f"{our}norm_context", f"{their}norm_context", NORM)]
        table += rows(modules, config.layers)
    return table


def _blocks(ours: str, theirs: str, layers: int) -> tuple[Tensor, ...]:
    """Of `Block`, without the norms of queries and keys that some have."""
    modules = (
        (f"{ours}norm1", f"{theirs}norm1", NORM),
        (f"{ours}attention", f"{theirs}attn", QKV),
        (f"{ours}attention/out", f"{theirs}attn.proj", LINEAR),
        (f"{ours}scale1", f"{theirs}ls1", SCALE),
        (f"{ours}norm2", f"{theirs}norm2", NORM),
        *_mlp(f"{ours}mlp", f"{theirs}mlp"),
        (f"{ours}scale2", f"{theirs}ls2", SCALE),
    )
    return rows(modules, layers)


def _attention(ours: str, theirs: str):
    """Of PyTorch's own multi-head attention."""
    return (ours, theirs, IN_PROJ), (f"{ours}/out", f"{theirs}.out_proj", LINEAR)


def _mlp(ours: str, theirs: str):
    return (f"{ours}/in", f"{theirs}.fc1", LINEAR), (f"{ours}/out", f"{theirs}.fc2", LINEAR)
