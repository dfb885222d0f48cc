"""Judges trained models of wrist views against the truth: video models, or geometry.

    python tools/evaluate_wrist.py WORKDIR [WORKDIR ...] --clips 48

On the clips that the first run's data holds out for the last word.

Wrist videos stand beside the condition map alone: as it is, black where it knows nothing,
and with its holes filled, which the models start from. Every frame is scored.

Wrist cameras stand beside the one in the middle of the training moments. A network's unit
of length is brought to metres by its points, one number a moment; nothing else is aligned.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from w4d_jax.data.pipeline import assemble
from w4d_jax.evaluate import markdown, summarise, write_report
from w4d_jax.evaluate.image import psnr, ssim
from w4d_jax.evaluate.perceptual import lpips
from w4d_jax.evaluate.scope import clip_mean
from w4d_jax.evaluate.scores import Entry, Scores
from w4d_jax.evaluate.wrist import Wrist, mean_wrist, metres, scaled, wrist_scores
from w4d_jax.kin.camera import pointmap, to_world
from w4d_jax.kin.pose import decode_pose
from w4d_jax.sample.preview import image
from w4d_jax.train.geometry import Scene, seen
from w4d_jax.train.geometry_targets import targets
from w4d_jax.train.trained import Trained, load_trained
from w4d_jax.types import InputError

BATCH = 8  # clips or moments sampled together
MOMENTS = 128  # of training, for the camera in their middle


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
    first, *others = runs.values()
    for run in others:
        if run.config.task != first.config.task:
            raise InputError(
                f"runs of {first.config.task} and {run.config.task}: need one task"
            )
    if first.config.task == "wristworld_video":
        return videos(runs, clips, networks)
    if first.config.task == "wristworld_geometry":
        return cameras(runs, clips * first.config.data.frames)
    raise InputError(
        f"{workdirs[0]}: a run of {first.config.task}, need one of wrist views"
    )


def batches(run: Trained, count: int) -> Iterator[tuple[dict, int]]:
    """Held-out items by the batch, and how many of it count: the last repeats its last
    item, so that every batch has one shape."""
    items = run.task.items("test")
    chosen = [items[i] for i in range(min(count, len(items)))]
    padded = chosen + chosen[-1:] * (-len(chosen) % BATCH)
    found = assemble(padded, BATCH, shuffle=False, repeat=False, threads=0, prefetch=0)
    left = len(chosen)
    for batch in tqdm(found, total=len(padded) // BATCH, unit="batch", disable=None):
        yield batch, min(BATCH, left)
        left -= BATCH


def videos(runs: dict[str, Trained], clips: int, networks: bool) -> Iterator[Entry]:
    samplers = {name: jax.jit(run.task.sample) for name, run in runs.items()}
    first = next(iter(runs.values()))
    guess = jax.jit(first.task.guess)
    for number, (batch, count) in enumerate(batches(first, clips)):
        ids, key = batch.pop("id"), jax.random.key(number)
        made = {
            name: image(samplers[name](run.params, run.frozen, batch, key).rgb)
            for name, run in runs.items()
        }
        made["map, holes filled"] = image(guess(first.frozen, batch).rgb)
        made["map, holes black"] = batch["map"]
        for b in range(count):
            truth, valid = batch["rgb"][b], batch["valid"][b]
            scores = {
                name: view_scores(video[b], truth, valid, networks)
                for name, video in made.items()
            }
            yield Entry(str(ids[b]), scores, {}, None)


def cameras(runs: dict[str, Trained], moments: int) -> Iterator[Entry]:
    samplers = {name: jax.jit(run.task.sample) for name, run in runs.items()}
    first = next(iter(runs.values()))
    middle = middle_of(first.task.items("train"))
    for batch, count in batches(first, moments):
        ids, one = batch.pop("id"), jnp.ones(BATCH)
        aim = targets(seen(batch, ""), seen(batch, "wrist_"), one)
        height, width = batch["wrist_depth"].shape[1:]
        poses, _ = decode_pose(aim.wrist, height, width)
        sights = jax.vmap(pointmap)(batch["wrist_depth"], batch["wrist_K"])
        sights = to_world(sights, poses)
        said = {
            name: jax.device_get(samplers[name](run.params, run.frozen, batch, None))
            for name, run in runs.items()
        }
        aim, poses, sights = jax.device_get((aim, poses, sights))
        for b in range(count):
            valid = aim.valid[b]
            true = Wrist(poses[b], aim.K[b], aim.points[b])
            wrists = {name: in_metres(x, b, true, valid) for name, x in said.items()}
            known = sights[b][batch["wrist_depth"][b] > 0]
            yield Entry(
                str(ids[b]),
                {
                    name: {"wrist": wrist_scores(x, true, valid, known, height, width)}
                    for name, x in {**wrists, "training mean": middle}.items()
                },
                {},
                None,
            )


def middle_of(items) -> Wrist:
    """The wrist camera in the middle of moments, seen from their first anchor."""
    at = np.random.default_rng(0).permutation(len(items))[:MOMENTS]
    moments = [items[i] for i in tqdm(at, unit="moment", disable=None)]
    poses = [
        m["wrist_cam_from_world"] @ np.linalg.inv(m["cam_from_world"][0]) for m in moments
    ]
    return mean_wrist(np.stack(poses), np.stack([m["wrist_K"] for m in moments]))


def in_metres(scene: Scene, b: int, true: Wrist, valid) -> Wrist:
    """What a network says of moment b."""
    unit = metres(scene.points[b], true.points, valid)
    pose = scaled(scene.cam_from_world[b], unit)
    return Wrist(pose, scene.K[b], unit * scene.points[b])


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
