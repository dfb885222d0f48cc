"""Judges generated 4D videos against true ones: image, geometry and robot metrics.

    python tools/evaluate.py --checkpoint WORKDIR [WORKDIR ...] --clips 64
    python tools/evaluate.py --prediction OUT --truth CLIP

The first judges training runs, side by side, on the held-out clips of the first run's data.
In the second each file is a result folder or its clip.npz; several are paired in order.
"Repeat the first frame" is judged beside them, and beside runs what the first of them
starts from: its first guess and, where that has the hand take along what it met
(train/outcome.py), the one in which it takes nothing. Every metric is given for whole
frames, with the robot masked out, and on the pixels that change with the robot masked out.
Frame 0 is the model's input and is not scored.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from w4d_jax.data.pipeline import names, sample
from w4d_jax.data.result import Result, read_result
from w4d_jax.data.source import open_source
from w4d_jax.evaluate import Case, markdown, score_case, summarise, task_of, write_report
from w4d_jax.kin.camera import pointmap, to_world
from w4d_jax.npz import read_npz
from w4d_jax.sample.simulate import results
from w4d_jax.train import kinema4d
from w4d_jax.train.trained import load_trained
from w4d_jax.types import Camera, InputError

BATCH = 8  # clips sampled together
GUESS = "first guess, no network"  # what the first run draws of what it is told
LEFT = "the same, nothing taken along"
SIZE = ("view", "frames", "height", "width")


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", nargs="+", metavar="WORKDIR")
    parser.add_argument("--clips", type=int, default=64, help="held-out clips (default 64)")
    parser.add_argument("--prediction", nargs="+", metavar="OUT")
    parser.add_argument("--truth", nargs="+", metavar="CLIP")
    parser.add_argument(
        "--robot",
        nargs="+",
        metavar="NPZ",
        help="robot.npz of tools/render_robot.py for each truth: adds the robot's scores",
    )
    parser.add_argument("--out", metavar="PATH", help="write PATH.json and PATH.md too")
    parser.add_argument(
        "--no-networks",
        action="store_true",
        help="leave out LPIPS and FVD (extra `metrics`)",
    )
    args = parser.parse_args(arguments)
    if bool(args.checkpoint) == bool(args.prediction) or bool(args.prediction) != bool(
        args.truth
    ):
        parser.error("need either --checkpoint or both --prediction and --truth")
    try:
        if args.out and not os.access(Path(args.out).parent, os.W_OK):
            raise InputError(f"--out {Path(args.out).parent}: cannot write there")
        if args.checkpoint:
            cases, count = checkpoint_cases(args.checkpoint, args.clips)
        else:
            cases = file_cases(args.prediction, args.truth, args.robot)
            count = len(args.truth)
        progress = tqdm(cases, total=count, unit="clip", disable=None)
        entries = [score_case(case, networks=not args.no_networks) for case in progress]
        if args.out:
            write_report(args.out, entries)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(summarise(entries)), end="")
    return 0


def checkpoint_cases(workdirs, clips: int) -> tuple[Iterator[Case], int]:
    """Held-out clips with what each run makes of them, and how many there are."""
    runs = {Path(workdir).name: load_trained(workdir) for workdir in workdirs}
    if len(runs) != len(workdirs):
        raise InputError(
            "--checkpoint: two workdirs of one name; the table needs distinct names"
        )
    data = next(iter(runs.values())).config.data
    for name, run in runs.items():
        for key in SIZE:
            if run.config.data[key] != data[key]:
                raise InputError(
                    f"{name}: data.{key} {run.config.data[key]}, not {data[key]}"
                )
    source, views = open_source(data, "test"), names(data.view)
    count = min(clips, len(source) * len(views))
    size = {key: data[key] for key in ("frames", "height", "width")}
    samplers = {name: jax.jit(run.task.sample) for name, run in runs.items()}
    first = next(iter(runs.values()))
    drawings = {GUESS: jax.jit(first.task.guess)}
    method = kinema4d.build(first.config)
    if method.joint.condition.outcomes:
        drawings[LEFT] = jax.jit(method.left)

    def cases():
        for start in range(0, count, BATCH):
            # The last batch repeats its last clip, so that every batch has one shape.
            chosen = [min(i, count - 1) for i in range(start, start + BATCH)]
            seen = [source[i // len(views)] for i in chosen]
            items = [
                sample(clip, views[i % len(views)], **size)
                for clip, i in zip(seen, chosen, strict=True)
            ]
            ids = [item.pop("id") for item in items]
            batch = {key: np.stack([item[key] for item in items]) for key in items[0]}
            key = jax.random.key(start)
            made = {
                name: results(samplers[name](run.params, run.frozen, batch, key), batch)
                for name, run in runs.items()
            }
            for name, draw in drawings.items():
                made[name] = results(draw(first.frozen, batch), batch)
            for b in range(min(BATCH, count - start)):
                truth, surface = truth_of(items[b])
                predictions = {name: made[name][b] for name in made}
                yield Case(ids[b], predictions, truth, surface, task_of(seen[b]))

    return cases(), count


def truth_of(item) -> tuple[Result, np.ndarray]:
    """What happened in a pipeline item, and the robot's points, both in the world."""
    _, height, width, _ = item["rgb"].shape
    camera = Camera(width, height, item["K"], item["cam_from_world"])
    points, surface = (
        np.asarray(to_world(pointmap(item[name], camera.K), camera.cam_from_world))
        for name in ("depth", "robot_depth")
    )
    return Result(item["rgb"], points, item["robot_depth"] > 0, camera), surface


def file_cases(predictions, truths, robots) -> Iterator[Case]:
    """The pairs of files as cases, read one by one."""
    for option, files in (("--prediction", predictions), ("--robot", robots)):
        if files and len(files) != len(truths):
            raise InputError(f"{option}: {len(files)} files, --truth has {len(truths)}")
    for i, (prediction, path) in enumerate(zip(predictions, truths, strict=True)):
        truth = read_result(path)
        surface = read_surface(robots[i], truth) if robots else None
        yield Case(str(Path(path)), {"prediction": read_result(prediction)}, truth, surface)


def read_surface(path, truth: Result) -> np.ndarray:
    """robot.npz (depth in the camera) -> the robot's points in the world, f32[T,H,W,3]."""
    depth = read_npz(path, {"depth": "f4 T H W"})["depth"]
    if depth.shape != truth.robot_mask.shape:
        raise InputError(
            f"{path}: depth is {depth.shape}, the truth {truth.robot_mask.shape}"
        )
    camera = truth.camera
    return np.asarray(to_world(pointmap(depth, camera.K), camera.cam_from_world))


if __name__ == "__main__":
    sys.exit(main())
