"""Does the generated video hold the robot where kinematics put it? No labels, no segmenter.

A point is called robot when it lies within 3 cm (TOLERANCE) of the robot's visible surface
in the same frame, which is known exactly from joints and camera. The generated and the true
pointmap are classified alike:

  robot      pixels of the kinematic mask whose true point is robot too (not hidden
             behind an object)
  undecided  pixels outside the mask whose true point is within the tolerance as well (a
             held block, the table under the fingers), pixels of the mask where something
             stands before the robot, and pixels without true depth: left out
  IoU        of {generated point is robot} and {robot} over the other pixels

So a generated arm that is elsewhere, missing or swollen costs, and one that is right counts
fully. The point error at the robot's pixels says how exact it is inside the tolerance.
"""

import numpy as np
from scipy.spatial import KDTree

TOLERANCE = 0.03


def robot_series(prediction, truth, surface, mask, valid, tolerance=TOLERANCE):
    """-> {"robot_iou": f[T], "robot_point_error": f[T] metres}; NaN where no robot is seen.

    World points f[T,H,W,3]: generated, true, and of the robot's surface (read where mask).
    mask bool[T,H,W] from kinematics; valid bool[T,H,W] where truth is known.
    """
    frames = [
        _frame(*frame, tolerance)
        for frame in zip(prediction, truth, surface, mask, valid, strict=True)
    ]
    iou, error = np.array(frames, np.float64).T
    return {"robot_iou": iou, "robot_point_error": error}


def _frame(prediction, truth, surface, mask, valid, tolerance):
    if not (mask & valid).any():
        return np.nan, np.nan
    tree = KDTree(surface[mask])
    near = [_within(tree, points, valid, tolerance) for points in (prediction, truth)]
    robot = mask & near[1]
    if not robot.any():
        return np.nan, np.nan
    decided = valid & (mask == near[1])
    generated = near[0] & decided
    iou = (generated & robot).sum() / (generated | robot).sum()
    return iou, np.linalg.norm(prediction[robot] - surface[robot], axis=-1).mean()


def _within(tree, points, valid, tolerance):
    """Which of points f[H,W,3] have a point of the tree within the tolerance: bool[H,W]."""
    near = np.zeros(valid.shape, bool)
    near[valid] = np.isfinite(tree.query(points[valid], distance_upper_bound=tolerance)[0])
    return near
