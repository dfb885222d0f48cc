"""Encoded clips a second from this machine's cores, beside what one H200 trains on.

    python bench/data.py [--clips 32] [--batch 8] [--threads 2]

Made-up encoded clips of Kinema4D's size (49 frames of 480x720, latents of noise, which
nothing can compress) go through the training pipeline: store, unpacking, shuffling,
batches. What a card takes is its peak in bfloat16 over the operations of a clip's training
step (nets/flops.py), at the MFU that is aimed at and at a full one.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from w4d_jax.data.encoded import Encoded, EncodedSource, label, pack, part
from w4d_jax.data.pipeline import assemble
from w4d_jax.data.store import write
from w4d_jax.plan.chips import CHIPS
from w4d_jax.plan.model import model_of
from w4d_jax.train.config import load_config
from w4d_jax.train.encode import settings

CONFIG = str(Path(__file__).parents[1] / "configs/kinema4d.py")
PRESETS = ("14b", "14b_full", "1b")
AIMED = 0.5  # MFU


def config_of(preset: str):
    config = load_config(f"{CONFIG}:{preset}")
    with config.unlocked():
        config.data.encoded.train = "made up"
    return config


def made_up(i: int, shapes) -> Encoded:
    rng = np.random.default_rng(i)
    return Encoded(
        f"{i}/front",
        {
            name: rng.random(x.shape[1:]) < 0.2
            if x.dtype == bool
            else rng.standard_normal(x.shape[1:], np.float32).astype(x.dtype)
            for name, x in shapes.items()
        },
    )


class MadeUp:
    """`count` clips, made when they are asked for."""

    def __init__(self, count: int, shapes):
        self._count, self._shapes = count, shapes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Encoded:
        return made_up(i, self._shapes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    config = config_of("14b")
    settings_of, shapes = settings(config), model_of(config).batch(1)
    size = sum(x.size * x.dtype.itemsize for x in shapes.values())
    with tempfile.TemporaryDirectory() as folder:
        source = MadeUp(args.clips, shapes)
        write(part(folder, 0, 1), source, label=label(settings_of, "made up"), pack=pack)
        items = EncodedSource(folder, settings_of)
        data = iter(assemble(items, args.batch, seed=0, threads=args.threads))
        next(data)
        took = []
        for _ in range(args.rounds):
            start = time.perf_counter()
            for _ in range(args.clips // args.batch):
                next(data)
            took.append(time.perf_counter() - start)
    speed = args.clips // args.batch * args.batch / min(took)
    print(f"{speed:.1f} clips/s of {size / 2**20:.1f} MiB, {args.threads} threads,")
    print(f"the best of {args.rounds} rounds of {args.clips} clips, pages warm\n")
    print(
        f"| preset | TFLOP a clip | H200 at {AIMED:.0%} MFU, clips/s | at 100 % | we feed |"
    )
    print("|---|---|---|---|---|")
    for preset in PRESETS:
        step = model_of(config_of(preset)).step
        most = (CHIPS["H200"].flops or 0) / step
        print(
            f"| {preset} | {step / 1e12:,.0f} | {AIMED * most:.2f} | {most:.2f} "
            f"| {speed / (AIMED * most):.0f} times |"
        )


if __name__ == "__main__":
    main()
