"""Checkpoints from the PyTorch world, and back into it.

    python tools/convert.py import --kind KIND SRC DST
    python tools/convert.py export --kind KIND SRC DST

DST is a folder to be made: of ours on import (what configs call model.base and
model.adapter), of theirs on export. Kinds, and what SRC or DST holds of theirs:

    wan            diffusers' WanTransformer3DModel: config.json, *.safetensors (and index)
    wan-original   the same in Wan2.1's own names
    vae            diffusers' AutoencoderKLWan
    vae-original   Wan2.1_VAE.pth
    umt5           transformers' UMT5EncoderModel; umt5-original: models_t5_*.pth
    clip           transformers' CLIPVisionModel; clip-original: models_clip_*.pth, import
                   only, its text tower is not kept
    kinema4d       pytorch_lora_weights.safetensors and added_weights.safetensors
    4dnex          pytorch_lora_weights.safetensors and learnable_domain_embeddings.pt
    vggt           VGGT-1B; vggt-wrist: WristWorld's checkpoint.pt
    wristworld     WristWorld's video model
    run            a workdir of training, import only: its averaged weights, for another run
                   to start from

kinema4d and 4dnex are adapters for an imported Wan. With --base WAN they are merged into
it: on import into a model of ours, on export into transformer/, a plain Wan, beside their
own weights; that form is imported as well. SRC of an export may be a workdir of training.

Values and types are copied as they are, tensor by tensor: memory stays near the largest.
.pt and .pth are read as data; nothing in them is run.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from w4d_jax.nets.adapter import (
    SCALE,
    AdapterConfig,
    export_adapter,
    import_adapter,
    merged,
)
from w4d_jax.nets.checkpoint import (
    Checkpoint,
    from_entry,
    read_checkpoint,
    write_checkpoint,
)
from w4d_jax.nets.kinds import (
    KINDS,
    export_kind,
    export_merged,
    import_kind,
    import_merged,
)
from w4d_jax.nets.models import MODELS
from w4d_jax.train.export import run_checkpoint
from w4d_jax.types import InputError

ADAPTED = ("kinema4d", "4dnex")  # kinds that stand on a Wan
RUN = "run"  # the kind that is ours already


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=("import", "export"))
    parser.add_argument("--kind", required=True, choices=(*KINDS, *ADAPTED, RUN))
    parser.add_argument("source", metavar="SRC", type=Path)
    parser.add_argument("target", metavar="DST", type=Path)
    parser.add_argument("--base", type=Path, help="imported Wan that an adapter stands on")
    parser.add_argument(
        "--scale",
        type=float,
        default=SCALE,
        help="alpha / rank (%(default)s)",
    )
    parser.add_argument("--config", type=Path, help="JSON: the model's sizes in our words")
    args = parser.parse_args(arguments)
    try:
        if args.base and args.kind not in ADAPTED:
            raise InputError(f"--base: only {' and '.join(ADAPTED)} stand on another model")
        if args.kind == RUN and args.way == "export":
            raise InputError(f"--kind {RUN}: import only; name a form of theirs")
        before = peak()
        with draft(args.target) as folder:
            checkpoint = read(args) if args.way == "import" else opened(args)
            if args.way == "import":
                write_checkpoint(folder, checkpoint)
            else:
                write(args.kind, checkpoint, folder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    leaves = checkpoint.leaves.values()
    print(
        f"{args.target}: {checkpoint.model}, {size(sum(x.nbytes for x in leaves))}; memory "
        f"{size(peak())} at its peak, {size(peak() - before)} of it for this; its largest "
        f"stack of layers {size(max(x.nbytes for x in leaves))}"
    )
    return 0


def read(args) -> Checkpoint:
    """What an import writes."""
    kind, source = args.kind, args.source
    if kind == RUN:
        return run_checkpoint(source)
    if kind in KINDS:
        return import_kind(kind, source, args.config and sizes(args.config, kind))
    if (source / "transformer").is_dir():
        return import_merged(kind, source)
    return on_base(import_adapter(source, args.scale), args.base)


def opened(args) -> Checkpoint:
    """What an export reads."""
    model = KINDS[args.kind].model if args.kind in KINDS else args.kind
    configs = {model: MODELS[model].config}
    if args.kind in ADAPTED:
        configs["adapter"] = AdapterConfig
    if (args.source / "config.json").exists():
        found = run_checkpoint(args.source)
        if found.model not in configs:
            raise InputError(f"{args.source}: a run of {found.model}, need {model}")
    else:
        found = read_checkpoint(args.source, configs)
    return on_base(found, args.base)


def write(kind: str, checkpoint: Checkpoint, folder: Path) -> None:
    if kind in KINDS:
        export_kind(kind, checkpoint, folder)
    elif checkpoint.model == "adapter":
        export_adapter(folder, checkpoint)
        print(f"use its pairs at scale {checkpoint.config.scale:g}: no file says it")
    else:
        export_merged(checkpoint, folder)


def on_base(found: Checkpoint, base: Path | None) -> Checkpoint:
    """An adapter merged into the Wan in folder `base`, if one is given; a model with what
    only that Wan has."""
    if base is None:
        return found
    wan = read_checkpoint(base, {"wan": MODELS["wan"].config})
    if found.model == "adapter":
        return merged(wan, found)
    text = {path: leaf for path, leaf in wan.leaves.items() if path.startswith("text/")}
    return found._replace(leaves=dict(found.leaves) | text)


def sizes(path: Path, kind: str):
    """--config: the fields of the model's dataclass as JSON."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--config {path}: cannot read it ({error})") from error
    return from_entry(MODELS[KINDS[kind].model].config, entry, f"--config {path}")


@contextlib.contextmanager
def draft(target: Path) -> Iterator[Path]:
    """A folder that gets its name when it is whole, and vanishes when it is not."""
    if target.exists():
        raise InputError(f"{target}: exists already; remove it or choose another name")
    folder = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.replace(target)
    except OSError as error:
        raise InputError(f"{target}: cannot write it ({error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def peak() -> int:
    """The most memory that this process has held, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
