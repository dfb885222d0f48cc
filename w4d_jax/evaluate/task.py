"""On simulated data: does the generated block end where physics put it?

The block is found by its colour in the last frame, with the robot masked out; its place is
the median of its generated points, less what that median is off the block's centre in the
true first frame. The same finder is tried on the true last frame first, and where it errs
(block hidden behind the arm, two blocks of one colour) the clip is not judged. Truth alone
decides that, so a model cannot lose its failures that way. A block that is nowhere in the
generated frame counts as wrong, and as not having reached its goal.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import label

from w4d_jax.data.result import Result
from w4d_jax.data.sim.script import TOLERANCE as GOAL_TOLERANCE
from w4d_jax.evaluate.video import depth
from w4d_jax.types import Clip

TOLERANCE = 0.03  # metres between the generated and the true end that still agree
REACH = 0.045  # metres round a block's centre: its faces, nothing else
BELOW = 0.015  # metres under the centre, where the table may come near
MAX_ANGLE = np.radians(15.0)
DARK = 30  # of 255: below it a colour has no hue
MIN_PIXELS = 4


class Task(NamedTuple):
    """objects f[T,O,7]: where physics had the blocks (xyz + quaternion, world).

    target: the block the task is about. goal f[3]: where its centre should end. success:
    physics' own verdict. near_miss: scripted to fail narrowly.
    """

    objects: np.ndarray
    target: int
    goal: np.ndarray
    success: bool
    near_miss: bool


def task_of(clip: Clip) -> Task | None:
    """The task of a simulated clip; None for a clip without a goal."""
    if "goal" not in clip.meta:
        return None
    entries = (clip.meta[key] for key in ("target", "goal", "success", "near_miss"))
    return Task(clip.objects, *entries)


def task_scores(prediction: Result, truth: Result, task: Task) -> dict[str, float]:
    """All shares are 0 or 1 for one clip; NaN where the clip cannot be judged.

    judged; end_agrees: within 3 cm of physics; end_error: metres, NaN if not found;
    success_agrees: reaches the goal in the generated video as in physics, or in neither.
    """
    nan = float("nan")
    scores = {"judged": 0.0, "end_agrees": nan, "end_error": nan, "success_agrees": nan}
    target = target_colour(truth, task)
    if target is None:
        return scores
    free = (depth(truth) > 0) & ~truth.robot_mask
    seen = find_block(truth.rgb[0], truth.pointmap[0], free[0], *target)
    final = find_block(truth.rgb[-1], truth.pointmap[-1], free[-1], *target)
    if seen is None or final is None:
        return scores
    start, end = task.objects[0, task.target, :3], task.objects[-1, task.target, :3]
    offset = seen - start

    def reached(place) -> bool:
        """The simulator's own rule of success."""
        return bool(np.linalg.norm(place - task.goal) < GOAL_TOLERANCE)

    true_end = final - offset
    if np.linalg.norm(true_end - end) >= TOLERANCE or reached(true_end) != task.success:
        return scores
    scores["judged"] = 1.0
    no_robot = ~truth.robot_mask[-1]
    found = find_block(prediction.rgb[-1], prediction.pointmap[-1], no_robot, *target)
    if found is None:
        return scores | {"end_agrees": 0.0, "success_agrees": float(not task.success)}
    error = float(np.linalg.norm(found - offset - end))
    return scores | {
        "end_agrees": float(error < TOLERANCE),
        "end_error": error,
        "success_agrees": float(reached(found - offset) == task.success),
    }


def target_colour(truth: Result, task: Task):
    """The target's hue f[3] in the true first frame, and the angle (radians) within which a
    pixel has it: half way to the nearest hue of anything else, 15 degrees at most.

    None if the first frame does not show the target.
    """
    colours = hue(truth.rgb[0])
    free = (depth(truth)[0] > 0) & ~truth.robot_mask[0] & (truth.rgb[0].max(-1) > DARK)
    offset = truth.pointmap[0] - task.objects[0, task.target, :3]
    distance = np.linalg.norm(offset, axis=-1)
    near = free & (distance < REACH) & (offset[..., 2] > -BELOW)
    if near.sum() < MIN_PIXELS:
        return None
    colour = np.median(colours[near], axis=0)
    colour /= np.linalg.norm(colour)
    # Between one and two reaches lie rims and contact; beyond is surely something else.
    angles = np.sort(_angle(colours[free & (distance > 2 * REACH)], colour))
    # Odd pixels too few to be taken for a block must not narrow the limit to nothing.
    nearest = angles[MIN_PIXELS - 1] if len(angles) >= MIN_PIXELS else np.pi
    return colour, min(MAX_ANGLE, nearest / 2)


def find_block(rgb, points, free, colour, limit):
    """The median point f[3] of the largest patch of that colour, or None.

    rgb u8[H,W,3], points f[H,W,3]; free bool[H,W]: where to look, so not on the robot.
    """
    alike = free & (rgb.max(-1) > DARK) & (_angle(hue(rgb), colour) < limit)
    patches = np.empty(alike.shape, np.int32)
    label(alike, np.ones((3, 3)), output=patches)
    sizes = np.bincount(patches.ravel(), minlength=2)[1:]
    if sizes.max() < MIN_PIXELS:
        return None
    return np.median(points[patches == 1 + np.argmax(sizes)], axis=0)


def hue(rgb):
    """u8[...,3] -> the colour's unit direction f[...,3]; brightness, so shading, is out."""
    rgb = rgb.astype(np.float64)
    return rgb / np.maximum(np.linalg.norm(rgb, axis=-1, keepdims=True), 1.0)


def _angle(directions, colour):
    return np.arccos(np.clip(directions @ colour, -1.0, 1.0))
