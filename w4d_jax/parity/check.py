"""One comparison of our numbers with the reference's."""

from typing import NamedTuple

import numpy as np


class Check(NamedTuple):
    """What was compared, how far apart it is, and how far it may be."""

    name: str
    error: float  # infinity: another shape, or a value that is not finite
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


def compare(name: str, ours, theirs, tolerance: float) -> Check:
    """Largest absolute difference. tolerance 0: equal to the bit."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if not _comparable(ours, theirs):
        return Check(name, np.inf, tolerance)
    return Check(name, float(np.max(np.abs(_wide(ours) - theirs), initial=0)), tolerance)


def compare_scaled(name: str, ours, theirs, tolerance: float) -> Check:
    """Largest absolute difference as a share of the largest absolute value."""
    error = compare(name, ours, theirs, tolerance).error
    size = np.max(np.abs(_wide(np.asarray(theirs))), initial=0)
    return Check(name, error / size if size else error, tolerance)


def compare_relative(name: str, ours, theirs, tolerance: float) -> Check:
    """|ours - theirs| / |theirs|, Euclidean, over all elements together."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if not _comparable(ours, theirs):
        return Check(name, np.inf, tolerance)
    gap, size = np.linalg.norm(_wide(ours) - theirs), np.linalg.norm(_wide(theirs))
    return Check(name, float(gap / size) if size else float(gap), tolerance)


def _comparable(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return ours.shape == theirs.shape and bool(
        np.isfinite(_wide(ours)).all() and np.isfinite(_wide(theirs)).all()
    )


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)
