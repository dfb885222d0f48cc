"""Condition maps beside the true wrist view: the released splats, our surfaces, the robot.

    python bench/condition.py [--clips 8] [--size 64]
    python bench/condition.py --calvin FOLDER --robot URDF

On simulated clips (anchors front and side) or recorded ones of CALVIN (static and
opposing), with exact depths and cameras: how much of the view is covered, PSNR where it is
and everywhere, the share of all pixels whose depth is right to 2 %, milliseconds a frame.
"""

import argparse
import time

import jax
import numpy as np

from w4d_jax.data.calvin import CalvinSource
from w4d_jax.data.result import view_result
from w4d_jax.data.sim import SimSource
from w4d_jax.data.sim.source import arm
from w4d_jax.kin.render import draw_robot
from w4d_jax.kin.se3 import invert
from w4d_jax.kin.splat import released_map
from w4d_jax.kin.warp import Anchors, condition_map, with_robot


def anchors_of(views) -> Anchors:
    points = [view_result(view).pointmap for view in views]
    frames = len(points[0])
    eyes = [
        np.broadcast_to(np.asarray(invert(view.camera.cam_from_world))[:3, 3], (frames, 3))
        for view in views
    ]
    rgb, valid = [view.rgb for view in views], [view.depth > 0 for view in views]
    return Anchors(*(np.stack(x, 1) for x in (points, rgb, valid, eyes)))


def timed(function, *given):
    """The result, and milliseconds of the second call."""
    jax.block_until_ready(function(*given))
    start = time.perf_counter()
    made = jax.block_until_ready(function(*given))
    return jax.device_get(made), 1e3 * (time.perf_counter() - start)


def scores(rgb, depth, mask, truth) -> list[float]:
    square = np.square(rgb.astype(float) - truth.rgb).mean(-1)
    right = mask & (truth.depth > 0) & (np.abs(depth - truth.depth) < 0.02 * truth.depth)
    known, whole = (10 * np.log10(255**2 / x.mean()) for x in (square[mask], square))
    return [mask.mean(), known, whole, right.mean()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--calvin", metavar="FOLDER")
    parser.add_argument("--robot", metavar="URDF")
    options = parser.parse_args()
    if options.calvin:
        source = CalvinSource(options.calvin, options.robot)
        robot, names, wrist = source.robot, ("static", "opposing"), "gripper"
    else:
        side = options.size
        source = SimSource(3, options.clips, frames=9, height=side, width=side)
        robot, names, wrist = arm(), ("front", "side"), "wrist"
    rows: dict[str, list] = {"released": [], "surfaces": [], "and robot": []}
    for i in range(min(options.clips, len(source))):
        clip = source[i]
        truth = clip.views[wrist]
        anchors = anchors_of([clip.views[name] for name in names])
        T = len(clip.joints)
        flat = (x.reshape(T, -1, 3) for x in (anchors.points, anchors.rgb))
        splats, slow = timed(released_map, *flat, truth.camera)
        rows["released"].append(
            [*scores(splats.rgb, splats.depth, splats.index >= 0, truth), slow / T]
        )
        warped, slow = timed(condition_map, anchors, truth.camera)
        rows["surfaces"].append([*scores(*warped, truth), slow / T])
        alone, more = timed(draw_robot, robot, clip.joints, truth.camera)
        both = jax.device_get(with_robot(warped, alone))
        rows["and robot"].append([*scores(*both, truth), (slow + more) / T])
    print("| map | covered | PSNR there | PSNR | depth right | ms a frame |")
    print("|---|---|---|---|---|---|")
    for name, values in rows.items():
        figures = zip(np.mean(values, axis=0), (3, 2, 2, 3, 1), strict=True)
        print("|", name, *(f"| {x:.{digits}f}" for x, digits in figures), "|")


if __name__ == "__main__":
    main()
