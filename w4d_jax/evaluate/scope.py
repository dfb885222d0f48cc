"""Which pixels a score is taken over, decided by the truth alone.

Three scopes, everywhere the same:

  whole      every pixel.
  no_robot   pixels that the robot does not cover: the robot is given, so it must not
             flatter the score.
  changed    of those, the pixels whose true colour (more than CHANGED_RGB of 255 in some
             channel) or true depth (more than CHANGED_DEPTH metres) differs from the true
             first frame: objects that moved, and what they and the robot uncovered.

A frame counts in a clip's score by its number of pixels in the scope. In `whole` that is
the plain mean over frames; in `changed` a frame where three pixels moved weighs three.
"""

import numpy as np

CHANGED_RGB = 20
CHANGED_DEPTH = 0.02


def scopes(rgb, depth, robot_mask) -> dict[str, np.ndarray]:
    """The three masks bool[T,H,W] of a true clip.

    rgb u8[T,H,W,3]; depth f[T,H,W] metres, 0 where unknown (then only colour tells);
    robot_mask bool[T,H,W].
    """
    colour = np.abs(rgb.astype(np.int16) - rgb[:1].astype(np.int16)).max(-1) > CHANGED_RGB
    known = (depth > 0) & (depth[:1] > 0)
    moved = known & (np.abs(depth - depth[:1]) > CHANGED_DEPTH)
    no_robot = ~robot_mask
    return {
        "whole": np.ones_like(no_robot),
        "no_robot": no_robot,
        "changed": no_robot & (colour | moved),
    }


def pair_mask(mask, no_robot):
    """Pixels of the steps t -> t+1, bool[T,H,W] -> bool[T-1,H,W]: in the scope at t+1, and
    not robot at t unless the scope counts the robot."""
    before = no_robot | mask
    return mask[1:] & before[:-1]


def paste(prediction, truth, mask):
    """The prediction inside the scope, the truth outside it. [T,H,W,3], bool[T,H,W].

    Scores with a window or a receptive field take this, so that nothing wrong outside the
    scope leaks in.
    """
    return np.where(mask[..., None], prediction, truth)


def frame_mean(values, mask):
    """The mean over each frame's pixels in the scope, f[T,H,W] -> f[T]; NaN: no pixels."""
    count = mask.sum((1, 2))
    total = np.where(mask, values, 0.0).sum((1, 2), dtype=np.float64)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def clip_mean(scores, mask) -> float:
    """A clip's score: frames' scores f[T] weighted by their pixels; NaN: no pixels."""
    weight = np.where(np.isnan(scores), 0, mask.sum((1, 2)))
    if not weight.any():
        return float("nan")
    return float(np.sum(np.where(weight > 0, scores, 0.0) * weight) / weight.sum())
