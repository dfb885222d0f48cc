"""Judges wrist videos of trained video models against the true ones.

    python tools/evaluate_wrist.py WORKDIR [WORKDIR ...] --clips 48

On the clips that the first run's data holds out for the last word, beside the condition map
alone: as it is, black where it knows nothing, and with its holes filled, which the models
start from. Every frame is scored: none is given.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from w4d_jax.data.pipeline import assemble
from w4d_jax.evaluate import markdown, summarise, write_report
from w4d_jax.evaluate.image import psnr, ssim
from w4d_jax.evaluate.perceptual import lpips
from w4d_jax.evaluate.scope import clip_mean
from w4d_jax.evaluate.scores import Entry, Scores
from w4d_jax.sample.preview import image
from w4d_jax.train.trained import load_trained
from w4d_jax.types import InputError

BATCH = 8  # clips sampled together
TASK = "wristworld_video"


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR")
    parser.add_argument("--clips", type=int, default=64, help="held-out clips (default 64)")
    parser.add_argument("--out", metavar="PATH", help="write PATH.json and PATH.md too")
    parser.add_argument(
        "--no-networks", action="store_true", help="leave out LPIPS (extra `metrics`)"
    )
    args = parser.parse_args(arguments)
    try:
        entries = list(judged(args.workdirs, args.clips, not args.no_networks))
        if args.out:
            write_report(args.out, entries)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(summarise(entries)), end="")
    return 0


def judged(workdirs, clips: int, networks: bool) -> Iterator[Entry]:
    """The scores of each clip, by method."""
    runs = {Path(workdir).name: load_trained(workdir) for workdir in workdirs}
    for name, run in runs.items():
        if run.config.task != TASK:
            raise InputError(f"{name}: a run of {run.config.task}, need {TASK}")
    samplers = {name: jax.jit(run.task.sample) for name, run in runs.items()}
    first = next(iter(runs.values()))
    items, guess = first.task.items("test"), jax.jit(first.task.guess)
    chosen = [items[i] for i in range(min(clips, len(items)))]
    # The last batch repeats its last clip, so that every batch has one shape.
    padded = chosen + chosen[-1:] * (-len(chosen) % BATCH)
    batches = assemble(padded, BATCH, shuffle=False, repeat=False, threads=0, prefetch=0)
    left = len(chosen)
    for batch in tqdm(batches, total=len(padded) // BATCH, unit="batch", disable=None):
        ids, key = batch.pop("id"), jax.random.key(left)
        made = {
            name: image(samplers[name](run.params, run.frozen, batch, key).rgb)
            for name, run in runs.items()
        }
        made["map, holes filled"] = image(guess(first.frozen, batch).rgb)
        made["map, holes black"] = batch["map"]
        for b in range(min(BATCH, left)):
            truth, valid = batch["rgb"][b], batch["valid"][b]
            scores = {
                name: view_scores(video[b], truth, valid, networks)
                for name, video in made.items()
            }
            yield Entry(str(ids[b]), scores, {}, None)
        left -= BATCH


def view_scores(video, truth, valid, networks: bool) -> Scores:
    """u8[T,H,W,3] twice, bool[T,H,W] -> scores where the map is valid, where it is not, and
    everywhere."""
    scopes = {"whole": np.ones_like(valid), "mapped": valid, "unmapped": ~valid}
    metrics = {"psnr": psnr, "ssim": ssim, **({"lpips": lpips} if networks else {})}
    return {
        scope: {name: clip_mean(f(video, truth, mask), mask) for name, f in metrics.items()}
        for scope, mask in scopes.items()
    }


if __name__ == "__main__":
    sys.exit(main())
