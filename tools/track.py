"""Finds matched pixels of anchors and wrist view by a track head, for all moments, once.

    python tools/track.py --config configs/wristworld_geometry.py:full \\
        --config.data.store.train=DIR --model VGGT --out TRACKS
    python -m w4d_jax.train ... --config.data.tracks.train=TRACKS

VGGT is an imported VGGT-1B (tools/convert.py). Training on TRACKS projects its pairs and
runs no track head; without, pairs come from exact depths and cameras. Several hosts share
the work with --host 0 --hosts 4 and so on. What was stopped goes on where it was, and what
is complete is left as it is.
"""

import sys

import numpy as np
from tqdm import tqdm

from w4d_jax.data.tracks import unpack
from w4d_jax.train.command import config_parser, parse
from w4d_jax.train.config import load_config
from w4d_jax.train.task import build
from w4d_jax.train.track import track
from w4d_jax.types import InputError


def main(arguments=None) -> int:
    parser = config_parser(__doc__)
    parser.add_argument("--split", default="train", choices=("train", "validation", "test"))
    parser.add_argument("--model", required=True, metavar="DIR", help="imported weights")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--side", type=int, default=32, help="points in a row of the grid")
    parser.add_argument("--margin", type=float, default=32, help="its margin, pixels")
    parser.add_argument("--host", type=int, default=0, help="this host, from 0")
    parser.add_argument("--hosts", type=int, default=1, help="how many there are")
    parser.add_argument(
        "--batch", type=int, help="moments at a time on this host (default: one a device)"
    )
    args, changes = parse(parser, arguments)
    try:
        config = load_config(args.config, changes)
        run(config, args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(config, args) -> None:
    if config.task != "wristworld_geometry":
        raise InputError(f"{args.config}: task {config.task}, need wristworld_geometry")
    config.data.tracks.update(dict.fromkeys(config.data.tracks, ""))

    def progress(todo: range):
        return tqdm(todo, initial=todo.start, total=todo.stop, unit="moment")

    options = {name: getattr(args, name) for name in ("side", "margin", "host", "hosts")}
    items = build(config).items(args.split)
    made = track(
        config, items, args.model, args.out, batch=args.batch, progress=progress, **options
    )
    some = range(0, len(made), 1 + len(made) // 1000)
    kept = np.mean([unpack(made[i])["confidence"] > 0 for i in some])
    print(f"{made.path}: {len(made):,} moments, {100 * kept:.1f} % of tracks are pairs")


if __name__ == "__main__":
    sys.exit(main())
