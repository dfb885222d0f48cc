"""Runs the video autoencoder and the image encoder over all clips of a config, once.

    python tools/encode.py --config configs/kinema4d.py:14b --config.data.store.train=DIR \\
        --config.codec.wan.weights=FILE --config.image.clip.weights=FILE --out ENCODED
    python -m w4d_jax.train ... --config.data.encoded.train=ENCODED

Training on ENCODED gives the losses of training on the clips. Several hosts share the work
with --host 0 --hosts 4 and so on, or as docs/clusters.md says of training; each
spreads its batches over its own devices. What was stopped goes on where it was, and what is
complete is left as it is.
"""

import sys

from tqdm import tqdm

from w4d_jax.data.pipeline import check_sizes
from w4d_jax.train.cluster import ClusterConfig, share
from w4d_jax.train.command import config_parser, parse
from w4d_jax.train.config import filled, load_config
from w4d_jax.train.encode import encode
from w4d_jax.types import InputError


def main(arguments=None) -> int:
    parser = config_parser(__doc__)
    parser.add_argument("--split", default="train", choices=("train", "validation", "test"))
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--host", type=int, help="this host, from 0")
    parser.add_argument("--hosts", type=int, help="how many there are")
    parser.add_argument(
        "--batch", type=int, help="items at a time on this host (default: one a device)"
    )
    parser.add_argument("--dtype", default="float16", choices=("float16", "float32"))
    parser.add_argument("--shard-clips", type=int, default=64, help="clips in a file")
    args, changes = parse(parser, arguments)
    try:
        config = load_config(args.config, changes)
        run(config, args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(config, args) -> None:
    host, hosts = share(filled(ClusterConfig, config.cluster, "cluster"))
    host = host if args.host is None else args.host
    hosts = hosts if args.hosts is None else args.hosts

    def progress(todo: range):
        return tqdm(todo, initial=todo.start, total=todo.stop, unit="clip")

    made = encode(
        config,
        args.split,
        args.out,
        host=host,
        hosts=hosts,
        batch=args.batch,
        dtype=args.dtype,
        shard_clips=args.shard_clips,
        progress=progress,
    )
    size = sum(file.stat().st_size for file in made.path.iterdir())
    data = config.data
    theirs = reference_bytes(data.frames, data.height, data.width)
    print(
        f"{made.path}: {len(made):,} clips, {size / len(made):,.0f} bytes a clip on disk; "
        f"the reference keeps {theirs:,} for clips of this size, and encodes the condition "
        "anew at every step"
    )


def reference_bytes(frames: int, height: int, width: int) -> int:
    """What Kinema4D's authors store of a clip beside its four videos: their latents and the
    image tokens in float16, the robot's mask in bytes at full resolution."""
    check_sizes(frames, height, width)
    latent = (1 + (frames - 1) // 4) * (height // 8) * (width // 8) * 16
    return 2 * (4 * latent + 257 * 1280) + frames * height * width


if __name__ == "__main__":
    sys.exit(main())
