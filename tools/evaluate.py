"""Judges generated 4D videos against true ones: image, geometry and robot metrics.

    python tools/evaluate.py --prediction OUT --truth CLIP

Each is a result folder or its clip.npz; several of each are paired in order and averaged.
"Repeat the first frame" is judged beside them. Every metric is given for whole frames, with
the robot masked out, and on the pixels that change with the robot masked out. Frame 0 is
the model's input and is not scored.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from w4d_jax.data.npz import read_npz
from w4d_jax.data.result import Result, read_result
from w4d_jax.evaluate import Case, markdown, score_case, summarise, write_report
from w4d_jax.kin.camera import pointmap, to_world
from w4d_jax.types import InputError


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prediction", nargs="+", required=True, metavar="OUT")
    parser.add_argument("--truth", nargs="+", required=True, metavar="CLIP")
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
    try:
        cases = file_cases(args.prediction, args.truth, args.robot)
        progress = tqdm(cases, total=len(args.truth), unit="clip", disable=None)
        entries = [score_case(case, networks=not args.no_networks) for case in progress]
        if args.out:
            write_report(args.out, entries)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(markdown(summarise(entries)), end="")
    return 0


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
