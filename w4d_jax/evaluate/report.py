"""From clips' scores to a table: mean, standard error and count, as Markdown and as JSON.

A clip in which a metric has no value (nothing changed, no robot in view) does not count,
and the count says so. FVD is one number for all clips: it has a count and no error.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from w4d_jax.evaluate import perceptual
from w4d_jax.evaluate.scores import Entry

# Metric -> implementation or definition, unit, and the better direction.
METRICS = {
    "psnr": "PSNR, dB ↑",
    "ssim": "SSIM (Gaussian window of 11) ↑",
    "lpips": f"LPIPS ({perceptual.LPIPS_NAME}) ↓",
    "fvd": f"FVD ({perceptual.FVD_NAME}) ↓",
    "chamfer_l1": "Chamfer L1, m ↓",
    "chamfer_l2": "Chamfer L2, m² ↓",
    "f_0.01": "F-score at 1 cm ↑",
    "f_0.05": "F-score at 5 cm ↑",
    "temporal_chamfer_l1": "Chamfer L1 of displacements, m ↓",
    "temporal_chamfer_l2": "Chamfer L2 of displacements, m² ↓",
    "temporal_f_0.01": "F-score of displacements at 1 cm ↑",
    "temporal_f_0.05": "F-score of displacements at 5 cm ↑",
    "abs_rel": "depth AbsRel ↓",
    "delta1": "depth delta1 ↑",
    "robot_iou": "robot IoU against kinematics ↑",
    "robot_point_error": "robot point error, m ↓",
    "judged": "share of clips that can be judged",
    "end_agrees": "block ends within 3 cm of physics ↑",
    "end_error": "block end error where found, m ↓",
    "success_agrees": "success as in physics ↑",
    "wrist_translation": "wrist camera's place, m ↓",
    "wrist_rotation": "wrist camera's rotation, degrees ↓",
    "wrist_field": "wrist camera's field of view, degrees ↓",
    "wrist_reprojection": "reprojection into the wrist image, pixels ↓",
    "anchor_points": "points of the anchors, m ↓",
}

TITLES = {
    "whole": "Whole frame",
    "no_robot": "Robot masked out",
    "changed": "Changed pixels, robot masked out",
    "robot": "The robot itself",
    "mapped": "Where the condition map knows the wrist view",
    "unmapped": "Where it does not",
    "wrist": "The wrist camera and the points",
    "task": "Task, all clips",
    "task_near_miss": "Task, near-misses",
    "task_other": "Task, all others",
}


def summarise(entries: Sequence[Entry]) -> dict:
    """method -> scope -> metric -> {"mean", "error" (standard error), "count"}.

    A number that does not exist (no clip's mean, one clip's error) is None.
    """
    methods = dict.fromkeys(method for entry in entries for method in entry.scores)
    return {method: _method(entries, method) for method in methods}


def _method(entries, method) -> dict:
    values: dict[str, dict[str, list[float]]] = {}
    for entry in entries:
        for scope, metrics in entry.scores.get(method, {}).items():
            for metric, value in metrics.items():
                values.setdefault(scope, {}).setdefault(metric, []).append(value)
    table = {
        scope: {metric: _statistics(column) for metric, column in metrics.items()}
        for scope, metrics in values.items()
    }
    featured = [e for e in entries if method in e.features]
    if len(featured) >= 2:
        truth = np.stack([entry.true_features for entry in featured])
        for scope in featured[0].features[method]:
            generated = np.stack([entry.features[method][scope] for entry in featured])
            distance = perceptual.frechet_distance(generated, truth)
            table[scope]["fvd"] = {"mean": distance, "error": None, "count": len(featured)}
    return table


def _statistics(column) -> dict:
    x = np.array([value for value in column if not math.isnan(value)])
    mean = float(x.mean()) if len(x) else None
    error = float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else None
    return {"mean": mean, "error": error, "count": len(x)}


def markdown(summary: dict) -> str:
    """A table a scope: a row a metric, a column a method; mean ± standard error (clips)."""
    blocks = []
    for scope, title in TITLES.items():
        found = {m for table in summary.values() for m in table.get(scope, {})}
        rows = [m for m in METRICS if m in found]
        if not rows:
            continue
        lines = [f"### {title}", "", "| | " + " | ".join(summary) + " |"]
        lines.append("|---" * (1 + len(summary)) + "|")
        for metric in rows:
            cells = (_cell(table.get(scope, {}).get(metric)) for table in summary.values())
            lines.append(f"| {METRICS[metric]} | " + " | ".join(cells) + " |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _cell(entry) -> str:
    if entry is None or entry["mean"] is None:
        return "–"
    error = "" if entry["error"] is None else f" ± {entry['error']:.2g}"
    return f"{entry['mean']:.4g}{error} ({entry['count']})"


def write_report(path, entries: Sequence[Entry]) -> dict:
    """Writes PATH.json (summary, every clip's scores) and PATH.md; returns the summary."""
    summary = summarise(entries)
    clips = [{"id": entry.id, "scores": _finite(entry.scores)} for entry in entries]
    content = {"metrics": METRICS, "scopes": TITLES, "summary": summary, "clips": clips}
    files = {
        ".json": json.dumps(content, indent=1, allow_nan=False),
        ".md": markdown(summary),
    }
    for suffix, text in files.items():
        file = Path(f"{path}{suffix}")
        partial = file.with_name(file.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    return summary


def _finite(tree):
    """NaN has no place in JSON: None."""
    if isinstance(tree, dict):
        return {key: _finite(branch) for key, branch in tree.items()}
    return None if math.isnan(tree) else tree
