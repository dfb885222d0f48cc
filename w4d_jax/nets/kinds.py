"""The forms in which others keep their models, read and written.

Each kind says how its tensors are called, where its sizes stand, and what its files are
named; `import_kind` makes a `Checkpoint` of ours out of it and `export_kind` the reverse.
Nothing is read until it is written elsewhere.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from w4d_jax.nets import peer_config as peer
from w4d_jax.nets.adapter import export_added, import_added, import_domain
from w4d_jax.nets.checkpoint import Checkpoint, check_shapes, check_sizes
from w4d_jax.nets.clip import ClipConfig
from w4d_jax.nets.clip_names import clip, prefixed, visual_half
from w4d_jax.nets.files import SHARD, TORCH, open_tensors, write_shards
from w4d_jax.nets.kinema4d import Kinema4DConfig
from w4d_jax.nets.models import MODELS
from w4d_jax.nets.text import TextConfig
from w4d_jax.nets.text_names import text
from w4d_jax.nets.torch_zip import write_torch
from w4d_jax.nets.vae import VAEConfig
from w4d_jax.nets.vae_names import vae
from w4d_jax.nets.vggt.config import VGGTConfig
from w4d_jax.nets.vggt.names import vggt
from w4d_jax.nets.wan_names import wan
from w4d_jax.nets.weights import Tensor, ours, theirs
from w4d_jax.nets.wristworld import WristWorldConfig, wristworld_1b
from w4d_jax.nets.wristworld_names import wristworld
from w4d_jax.types import InputError


class Kind(NamedTuple):
    """One form of one model."""

    model: str  # of nets/models.py
    table: Callable[[Any], tuple[Tensor, ...]]  # config -> names
    file: str  # stem of its .safetensors, or the name of its .pth; "": import only
    # Their config.json <-> config; or None, and the one published config.
    sizes: tuple[Callable[[dict], Any], Callable[[Any], dict]] | None = None
    published: Any = None
    prepare: Callable[[Mapping], Mapping] = dict  # of their tensors, before the table


SHARDS = "diffusion_pytorch_model"
KINDS = {
    "wan": Kind("wan", wan, SHARDS, (peer.wan, peer.wan_entry)),
    "wan-original": Kind(
        "wan",
        partial(wan, original=True),
        SHARDS,
        (peer.wan_original, peer.wan_original_entry),
    ),
    "vae": Kind("vae", vae, SHARDS, (peer.vae, peer.vae_entry)),
    "vae-original": Kind(
        "vae", partial(vae, original=True), "Wan2.1_VAE.pth", published=VAEConfig()
    ),
    "umt5": Kind("umt5", text, "model", (peer.umt5, peer.umt5_entry)),
    "umt5-original": Kind(
        "umt5",
        partial(text, original=True),
        "models_t5_umt5-xxl-enc-bf16.pth",
        published=TextConfig(),
    ),
    "clip": Kind("clip", clip, "model", (peer.clip, peer.clip_entry), prepare=prefixed),
    # The text tower of this file is not kept, so there is no way back.
    "clip-original": Kind(
        "clip",
        partial(clip, prefix="visual.", original=True),
        "",
        published=ClipConfig(),
        prepare=visual_half,
    ),
    "vggt": Kind("vggt", vggt, "model", published=VGGTConfig(wrist=None)),
    "vggt-wrist": Kind("vggt", vggt, "checkpoint.pt", published=VGGTConfig()),
    "wristworld": Kind(
        "wristworld",
        wristworld,
        "video_dit_lora",
        published=WristWorldConfig(**wristworld_1b()),
    ),
}


def import_kind(name: str, source: Path, config=None) -> Checkpoint:
    """A file or folder of theirs as a checkpoint of ours, not yet read.

    config: sizes, where its files do not say them and they are not the published ones.
    Raises InputError for another model's, for missing, unknown or misshapen tensors.
    """
    kind = KINDS[name]
    if config is None:
        config = _sizes(kind, source) if kind.sizes else kind.published
    try:
        leaves = ours(kind.table(config), kind.prepare(open_tensors(source)))
    except InputError as error:
        raise InputError(f"{source} as {name}: {error}") from error
    check_shapes(leaves, MODELS[kind.model].shapes(config), source)
    return Checkpoint(kind.model, config, leaves)


def export_kind(
    name: str, checkpoint: Checkpoint, folder: Path, limit: int = SHARD
) -> None:
    """Writes a checkpoint of ours into an existing folder as they keep it."""
    kind = KINDS[name]
    if not kind.file:
        raise InputError(f"{name}: import only; it held more than this model")
    tensors = theirs(kind.table(checkpoint.config), checkpoint.leaves)
    if Path(kind.file).suffix in TORCH:
        write_torch(folder / kind.file, tensors)
    else:
        write_shards(folder, kind.file, tensors, limit)
    if kind.sizes:
        text = json.dumps(kind.sizes[1](checkpoint.config), indent=1)
        (folder / "config.json").write_text(text, encoding="utf-8")


def import_merged(name: str, source: Path) -> Checkpoint:
    """Kinema4D or 4DNeX with its Wan merged in, as `export_merged` writes it."""
    base = import_kind("wan", source / "transformer")
    if name == "4dnex":
        return Checkpoint(name, base.config, dict(base.leaves) | import_domain(source))
    added, sizes = import_added(source)
    config = Kinema4DConfig(base.config, **sizes)
    leaves = dict(base.leaves) | added
    check_shapes(leaves, MODELS[name].shapes(config), source)
    return Checkpoint(name, config, leaves)


def export_merged(checkpoint: Checkpoint, folder: Path, limit: int = SHARD) -> None:
    """A merged model: `transformer/`, a plain Wan, and what stands beside it."""
    names = ("dit/", "text/")
    base = {k: v for k, v in checkpoint.leaves.items() if k.startswith(names)}
    added = {k: v for k, v in checkpoint.leaves.items() if not k.startswith(names)}
    if not any(name.startswith("text/") for name in base):
        raise InputError("this network lacks Wan's text embedder: give the Wan by --base")
    whole = checkpoint.model == "kinema4d"
    config = checkpoint.config.dit if whole else checkpoint.config
    (folder / "transformer").mkdir()
    export_kind("wan", Checkpoint("wan", config, base), folder / "transformer", limit)
    export_added(folder, added, checkpoint.config.variant if whole else "")


def _sizes(kind: Kind, source: Path) -> Any:
    """Out of their config.json, in the folder or beside the file."""
    path = (source if source.is_dir() else source.parent) / "config.json"
    assert kind.sizes
    try:
        config = kind.sizes[0](json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{path}: {error}") from error
        raise InputError(
            f"{path}: does not say the model's sizes ({error!r}); give them by --config"
        ) from error
    check_sizes(config, path)
    return config
