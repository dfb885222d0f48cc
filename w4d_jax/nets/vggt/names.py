"""Names of VGGT-1B's and WristWorld's checkpoints, for `nets/weights.py`."""

from w4d_jax.nets.vae_names import FRAME
from w4d_jax.nets.vggt.config import DenseConfig, PoseConfig, VGGTConfig
from w4d_jax.nets.weights import LINEAR, MATRIX, NORM, ROW, SAME, Layout, Tensor

IMAGE = Layout(  # [out, in, h, w]
    lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)
)
PIXEL = Layout(lambda a: a[..., 0, 0].T, lambda a: a.T[..., None, None])  # [out, in, 1, 1]
SPREAD = Layout(  # [in, out, h, w]
    lambda a: a.transpose(0, 2, 3, 1), lambda a: a.transpose(0, 3, 1, 2)
)
ONE = Layout(lambda a: a[0, 0], lambda a: a[None, None])  # two leading axes of one
PAIR = Layout(lambda a: a[0, :, 0], lambda a: a[None, :, None])  # [1, 2, 1, C]

# Kinds of module: our leaf, their leaf, layout.
CONV = (("/kernel", ".weight", IMAGE), ("/bias", ".bias", SAME))
BARE = CONV[:1]
CONV1 = (("/kernel", ".weight", PIXEL), ("/bias", ".bias", SAME))
PATCH = (("/kernel", ".weight", FRAME), ("/bias", ".bias", SAME))
UPSAMPLE = (("/kernel", ".weight", SPREAD), ("/bias", ".bias", SAME))
QKV = (("/kernel", ".qkv.weight", MATRIX), ("/bias", ".qkv.bias", SAME))
IN_PROJ = (("/kernel", ".in_proj_weight", MATRIX), ("/bias", ".in_proj_bias", SAME))


def vggt(config: VGGTConfig) -> tuple[Tensor, ...]:
    """Table of `VGGT` with the heads that the config has."""
    rows = _aggregator(config)
    if config.camera:
        rows += _refine("camera/", "camera_head.", config.camera)
    for ours, theirs, dense in (
        ("depth", "depth_head.", config.depth),
        ("point", "point_head.", config.point),
    ):
        if dense:
            rows += _pyramid(f"{ours}/pyramid/", theirs, dense)
            rows += _rows(
                (f"{ours}/shrink", f"{theirs}scratch.output_conv1", CONV),
                (f"{ours}/out1", f"{theirs}scratch.output_conv2.0", CONV),
                (f"{ours}/out2", f"{theirs}scratch.output_conv2.2", CONV1),
            )
    if config.track:
        rows += _track(config)
    if config.wrist:
        rows += _wrist(config)
    return tuple(rows)


def _aggregator(config: VGGTConfig) -> list[Tensor]:
    ours, theirs = "aggregator/encoder/", "aggregator.patch_embed."
    rows = _leaves(
        ("aggregator/camera", "aggregator.camera_token", PAIR),
        ("aggregator/register", "aggregator.register_token", ROW),
        (f"{ours}class", f"{theirs}cls_token", ONE),
        (f"{ours}position", f"{theirs}pos_embed", ROW),
        (f"{ours}register", f"{theirs}register_tokens", ROW),
        (f"{ours}mask", f"{theirs}mask_token", ROW),
    )
    rows += _rows(
        (f"{ours}patch", f"{theirs}patch_embed.proj", PATCH),
        (f"{ours}norm", f"{theirs}norm", NORM),
    )
    rows += _block(f"{ours}blocks/", f"{theirs}blocks.{{}}.", config.encoder_layers)
    for part in ("frame", "global"):
        ours, theirs = f"aggregator/blocks/{part}/", f"aggregator.{part}_blocks.{{}}."
        rows += _block(ours, theirs, config.layers)
        rows += _rows(
            (f"{ours}attention/norm_q", f"{theirs}attn.q_norm", NORM),
            (f"{ours}attention/norm_k", f"{theirs}attn.k_norm", NORM),
            layers=config.layers,
        )
    return rows


def _refine(ours: str, theirs: str, config: PoseConfig) -> list[Tensor]:
    return [
        *_leaves((f"{ours}empty", f"{theirs}empty_pose_tokens", ONE)),
        *_rows(
            (f"{ours}token_norm", f"{theirs}token_norm", NORM),
            (f"{ours}trunk_norm", f"{theirs}trunk_norm", NORM),
            (f"{ours}embed", f"{theirs}embed_pose", LINEAR),
            (f"{ours}modulation", f"{theirs}poseLN_modulation.1", LINEAR),
            (f"{ours}branch/in", f"{theirs}pose_branch.fc1", LINEAR),
            (f"{ours}branch/out", f"{theirs}pose_branch.fc2", LINEAR),
        ),
        *_block(f"{ours}trunk/", f"{theirs}trunk.{{}}.", config.layers),
    ]


def _wrist(config: VGGTConfig) -> list[Tensor]:
    assert config.wrist
    rows = _refine("wrist/refine/", "wrist_head.", config.wrist.pose)
    rows += _leaves(("wrist/gather/query", "wrist_head.token_query", ROW))
    last = config.wrist.layers - 1
    for ours, number, layers in (("layers", "{}", last), ("last", str(last), 0)):
        ours = f"wrist/gather/{ours}/"
        theirs = f"wrist_head.token_aggregation_layers.{number}."
        rows += _rows(
            *_look(f"{ours}attention", f"{theirs}attention"),
            (f"{ours}norm1", f"{theirs}norm1", NORM),
            (f"{ours}mlp/in", f"{theirs}mlp.fc1", LINEAR),
            (f"{ours}mlp/out", f"{theirs}mlp.fc2", LINEAR),
            (f"{ours}norm2", f"{theirs}norm2", NORM),
            layers=layers,
        )
    return rows


def _pyramid(ours: str, theirs: str, config: DenseConfig) -> list[Tensor]:
    """Our resolutions count from 0, theirs from 1; the coarsest has nothing at its side."""
    scratch = f"{theirs}scratch."
    rows = _rows(
        (f"{ours}norm", f"{theirs}norm", NORM),
        (f"{ours}fit0", f"{theirs}resize_layers.0", UPSAMPLE),
        (f"{ours}fit1", f"{theirs}resize_layers.1", UPSAMPLE),
        (f"{ours}fit3", f"{theirs}resize_layers.3", CONV),
    )
    for i in range(4):
        join, fuse = f"{ours}join{i}", f"{scratch}refinenet{i + 1}."
        rows += _rows(
            (f"{ours}project{i}", f"{theirs}projects.{i}", CONV1),
            (f"{ours}lateral{i}", f"{scratch}layer{i + 1}_rn", BARE),
            (f"{join}_out", f"{fuse}out_conv", CONV1),
        )
        units = [(join, "resConfUnit2")] + ([(f"{join}_side", "resConfUnit1")] * (i < 3))
        rows += _rows(
            *(
                (f"{ours_}/conv{k}", f"{fuse}{unit}.conv{k}", CONV)
                for ours_, unit in units
                for k in (1, 2)
            )
        )
    return rows


def _track(config: VGGTConfig) -> list[Tensor]:
    track = config.track
    assert track
    ours, theirs = "track/features/", "track_head.feature_extractor."
    rows = _pyramid(f"{ours}pyramid/", theirs, track.dense)
    rows += _rows((f"{ours}shrink", f"{theirs}scratch.output_conv1", CONV))
    ours, theirs = "track/tracker/", "track_head.tracker."
    former = f"{theirs}updateformer."
    rows += _leaves(
        (f"{ours}role", f"{theirs}query_ref_token", ROW),
        (f"{ours}update/virtual", f"{former}virual_tracks", ROW),
    )
    rows += _rows(
        (f"{ours}map_norm", f"{theirs}fmap_norm", NORM),
        (f"{ours}corr/in", f"{theirs}corr_mlp.fc1", LINEAR),
        (f"{ours}corr/out", f"{theirs}corr_mlp.fc2", LINEAR),
        (f"{ours}feature_norm", f"{theirs}ffeat_norm", NORM),
        (f"{ours}feature", f"{theirs}ffeat_updater.0", LINEAR),
        (f"{ours}visible", f"{theirs}vis_predictor.0", LINEAR),
        (f"{ours}sure", f"{theirs}conf_predictor.0", LINEAR),
        (f"{ours}update/norm_in", f"{former}input_norm", NORM),
        (f"{ours}update/in", f"{former}input_transform", LINEAR),
        (f"{ours}update/norm_out", f"{former}output_norm", NORM),
        (f"{ours}update/out", f"{former}flow_head", LINEAR),
    )
    for name, part, attention in (
        ("time", "time_blocks", "attn"),
        ("virtual", "space_virtual_blocks", "attn"),
        ("virtual_from_points", "space_virtual2point_blocks", "cross_attn"),
        ("points_from_virtual", "space_point2virtual_blocks", "cross_attn"),
    ):
        our, their = f"{ours}update/layers/{name}/", f"{former}{part}.{{}}."
        context = ((f"{our}norm_context", f"{their}norm_context", NORM),)
        rows += _rows(
            (f"{our}norm1", f"{their}norm1", NORM),
            *(context if attention == "cross_attn" else ()),
            *_look(f"{our}attention", f"{their}{attention}"),
            (f"{our}norm2", f"{their}norm2", NORM),
            (f"{our}mlp/in", f"{their}mlp.fc1", LINEAR),
            (f"{our}mlp/out", f"{their}mlp.fc2", LINEAR),
            layers=track.layers,
        )
    return rows


def _block(ours: str, theirs: str, layers: int) -> list[Tensor]:
    """Of a `Block` without norms of q and k."""
    scales = [(f"{ours}scale{i}", f"{theirs}ls{i}.gamma", SAME) for i in (1, 2)]
    return _leaves(*scales, layers=layers) + _rows(
        (f"{ours}norm1", f"{theirs}norm1", NORM),
        (f"{ours}attention", f"{theirs}attn", QKV),
        (f"{ours}attention/out", f"{theirs}attn.proj", LINEAR),
        (f"{ours}norm2", f"{theirs}norm2", NORM),
        (f"{ours}mlp/in", f"{theirs}mlp.fc1", LINEAR),
        (f"{ours}mlp/out", f"{theirs}mlp.fc2", LINEAR),
        layers=layers,
    )


def _look(ours: str, theirs: str):
    """Of torch's own multi-head attention."""
    return (ours, theirs, IN_PROJ), (f"{ours}/out", f"{theirs}.out_proj", LINEAR)


def _rows(*modules, layers: int = 0) -> list[Tensor]:
    return [
        Tensor(ours + our_leaf, theirs + their_leaf, layout, layers)
        for ours, theirs, kind in modules
        for our_leaf, their_leaf, layout in kind
    ]


def _leaves(*leaves, layers: int = 0) -> list[Tensor]:
    return [Tensor(ours, theirs, layout, layers) for ours, theirs, layout in leaves]
