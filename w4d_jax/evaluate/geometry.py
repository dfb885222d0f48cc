"""Distances between generated and true geometry, in metres and without any alignment.

For two sets of points P (generated) and G (true), with d the distance of a point to the
nearest point of the other set (exact: a k-d tree):

  Chamfer L1   (mean d(P -> G) + mean d(G -> P)) / 2               metres
  Chamfer L2   (mean d(P -> G)² + mean d(G -> P)²) / 2             square metres
  F at r       2 p q / (p + q), p the share of P within r of G, q that of G within r of P

A frame's sets are its points at the pixels of the mask. The temporal form of each is the
same distance between the sets of per-pixel displacements x[t+1] - x[t]: a frozen video pays
for the motion it lacks, a trembling one for the motion it invents. Kinema4D's authors do
not say how theirs is defined, so these figures are not to be set beside theirs.
"""

import numpy as np
from scipy.spatial import KDTree

THRESHOLDS = (0.01, 0.05)  # metres
DELTA1 = 1.25


def nearest(a, b):
    """The distance of each point of a f[N,3] to the nearest of b f[M,3] -> f64[N]."""
    # Thousands of equal points (no displacement) would all share a leaf, scanned each time.
    tree = KDTree(np.unique(b, axis=0))
    return tree.query(a, workers=-1)[0]


def cloud_scores(prediction, truth, thresholds=THRESHOLDS) -> dict[str, float]:
    """Chamfer L1, L2 and F-scores of two sets f[N,3], f[M,3]; NaN where one is empty."""
    names = ["chamfer_l1", "chamfer_l2", *(f"f_{r:g}" for r in thresholds)]
    if len(prediction) == 0 or len(truth) == 0:
        return dict.fromkeys(names, float("nan"))
    to_truth, to_prediction = nearest(prediction, truth), nearest(truth, prediction)
    scores = [
        (to_truth.mean() + to_prediction.mean()) / 2,
        ((to_truth**2).mean() + (to_prediction**2).mean()) / 2,
    ]
    for radius in thresholds:
        precision, recall = (to_truth < radius).mean(), (to_prediction < radius).mean()
        scores.append(2 * precision * recall / max(precision + recall, 1e-12))
    return dict(zip(names, map(float, scores), strict=True))


def cloud_series(prediction, truth, mask) -> dict[str, np.ndarray]:
    """`cloud_scores` of every frame: f[T,H,W,3] twice, bool[T,H,W] -> name: f[T]."""
    frames = [
        cloud_scores(p[m], g[m]) for p, g, m in zip(prediction, truth, mask, strict=True)
    ]
    return {name: np.array([frame[name] for frame in frames]) for name in frames[0]}


def temporal_series(prediction, truth, mask) -> dict[str, np.ndarray]:
    """The temporal forms. World points f[T,H,W,3] twice, mask bool[T-1,H,W] of the steps
    t -> t+1 -> name: f[T-1]."""
    scores = cloud_series(np.diff(prediction, axis=0), np.diff(truth, axis=0), mask)
    return {f"temporal_{name}": values for name, values in scores.items()}


def depth_errors(prediction, truth):
    """Depths f[T,H,W] in metres -> |z - z*| / z* f[T,H,W], and delta1's test bool[T,H,W]:
    max(z / z*, z* / z) < 1.25. Pixels with true depth 0 mean nothing; a generated depth of
    0 or less never passes."""
    known = truth > 0
    z = np.where(known, truth, 1.0)
    relative = np.abs(prediction - z) / z
    front = prediction > 0
    ratio = np.where(front, prediction, 1.0) / z
    return relative, front & (np.maximum(ratio, 1 / ratio) < DELTA1)
