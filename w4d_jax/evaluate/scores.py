"""The scores of one clip: every metric, in every scope, for every method side by side."""

from typing import NamedTuple

import numpy as np

from w4d_jax.data.result import Result
from w4d_jax.evaluate import geometry, image, perceptual
from w4d_jax.evaluate.robot import robot_series
from w4d_jax.evaluate.scope import clip_mean, frame_mean, pair_mask, paste, scopes
from w4d_jax.evaluate.task import Task, task_scores
from w4d_jax.evaluate.video import check_pair, depth, repeat_first_frame

BASELINE = "repeat first frame"

Scores = dict[str, dict[str, float]]  # scope -> metric -> value


class Case(NamedTuple):
    """One clip to judge.

    predictions: method -> result, all of the truth's size. surface f[T,H,W,3]: the robot's
    points from kinematics (world, read where the truth's robot_mask is), or None. task: of
    simulated clips, else None.
    """

    id: str
    predictions: dict[str, Result]
    truth: Result
    surface: np.ndarray | None = None
    task: Task | None = None


class Entry(NamedTuple):
    """A clip's scores by method, and what FVD needs: I3D's features f[400] by method and
    scope, and the truth's. No features where networks were not asked for or the clip is
    shorter than I3D takes."""

    id: str
    scores: dict[str, Scores]
    features: dict[str, dict[str, np.ndarray]]
    true_features: np.ndarray | None


def score_case(case: Case, *, networks: bool = True) -> Entry:
    """All metrics of a clip, for its predictions and for `repeat first frame`.

    networks: LPIPS and FVD too; they need the extra `metrics`.
    """
    truth = case.truth
    still = repeat_first_frame(truth, case.id)
    for method, prediction in case.predictions.items():
        check_pair(prediction, truth, f"{case.id}, {method}")
    # Robot and camera are given, not generated: the truth's mask and camera serve for all.
    methods = {
        method: truth._replace(rgb=prediction.rgb, pointmap=prediction.pointmap)
        for method, prediction in (*case.predictions.items(), (BASELINE, still))
    }
    masks = scopes(truth.rgb, depth(truth), truth.robot_mask)
    scores = {method: pixel_scores(x, truth, masks) for method, x in methods.items()}
    for method, prediction in methods.items():
        if case.surface is not None:
            scores[method]["robot"] = robot_scores(prediction, truth, case.surface)
        if case.task is not None:
            kind = "task_near_miss" if case.task.near_miss else "task_other"
            verdict = task_scores(prediction, truth, case.task)
            scores[method] |= {"task": verdict, kind: verdict}
    features, true_features = {}, None
    if networks:
        for method, prediction in methods.items():
            for scope, mask in masks.items():
                values = perceptual.lpips(prediction.rgb[1:], truth.rgb[1:], mask[1:])
                scores[method][scope]["lpips"] = clip_mean(values, mask[1:])
    if networks and len(truth.rgb) >= perceptual.FVD_FRAMES:
        true_features = perceptual.video_features(truth.rgb)
        features = {
            method: {
                scope: perceptual.video_features(paste(prediction.rgb, truth.rgb, mask))
                for scope, mask in masks.items()
            }
            for method, prediction in methods.items()
        }
    return Entry(case.id, scores, features, true_features)


def pixel_scores(prediction: Result, truth: Result, masks: dict[str, np.ndarray]) -> Scores:
    """PSNR, SSIM, depth and Chamfer scores of frames 1.. in each of the scopes' masks."""
    true_depth = depth(truth)
    known = true_depth > 0
    relative, within = geometry.depth_errors(depth(prediction), true_depth)
    rgb, true_rgb = prediction.rgb[1:], truth.rgb[1:]
    result = {}
    for scope, mask in masks.items():
        seen, measured = mask[1:], (mask & known)[1:]
        pairs = pair_mask(mask, masks["no_robot"]) & known[1:] & known[:-1]
        colours = {
            "psnr": image.psnr(rgb, true_rgb, seen),
            "ssim": image.ssim(rgb, true_rgb, seen),
        }
        shapes = {
            "abs_rel": frame_mean(relative[1:], measured),
            "delta1": frame_mean(within[1:], measured),
            **geometry.cloud_series(prediction.pointmap[1:], truth.pointmap[1:], measured),
        }
        motions = geometry.temporal_series(prediction.pointmap, truth.pointmap, pairs)
        result[scope] = {
            name: clip_mean(values, over)
            for group, over in ((colours, seen), (shapes, measured), (motions, pairs))
            for name, values in group.items()
        }
    return result


def robot_scores(prediction: Result, truth: Result, surface) -> dict[str, float]:
    """Robot IoU and point error of frames 1..; surface as in `Case`."""
    mask = truth.robot_mask[1:]
    series = robot_series(
        prediction.pointmap[1:], truth.pointmap[1:], surface[1:], mask, depth(truth)[1:] > 0
    )
    return {name: clip_mean(values, mask) for name, values in series.items()}
