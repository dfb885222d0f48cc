"""Inverse kinematics of a Panda: what is reached, how near, how fast.

python bench/inverse.py [--robot R.urdf] [--link NAME] [--targets 10000]
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np

from w4d_jax.kin import load_robot
from w4d_jax.kin.inverse import inverse

ARM = Path(__file__).parents[1] / "w4d_jax" / "data" / "assets" / "panda_w4d.xml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--robot", type=Path, default=ARM)
    parser.add_argument("--link", default="hand")
    parser.add_argument("--targets", type=int, default=10_000)
    options = parser.parse_args()
    robot = load_robot(options.robot)
    link = robot.link_index(options.link)
    poses_of = jax.jit(lambda q: robot.link_poses(q)[..., link, :, :])

    targets = np.asarray(poses_of(robot.sample(options.targets, seed=1)))
    for run in ("first call", "second call"):
        start = time.perf_counter()
        found = inverse(robot, options.link, targets[:, None])
        seconds = time.perf_counter() - start
        print(f"{run}: {seconds:.2f} s, {1e6 * seconds / len(targets):.0f} us a target")
    distance = np.asarray(poses_of(found.q[:, 0]))[:, :3, 3] - targets[:, :3, 3]
    millimetres = 1e3 * np.linalg.norm(distance, axis=-1)
    print(f"within 1 mm and 0.5 degrees: {100 * found.reached.mean():.2f} %")
    print(
        "mm off, median, 99 %, 99.9 %:", np.percentile(millimetres, [50, 99, 99.9]).round(4)
    )

    phase = np.linspace(0, 2 * np.pi, 100)[:, None] + np.arange(len(robot.joint_names))
    for frames in (30, 60, 100):
        q = robot.neutral + 0.2 * np.ptp(robot.span, axis=1) * np.sin(phase[:frames])
        path = np.asarray(poses_of(q.astype(np.float32)))
        seconds = []
        for _ in range(20):
            start = time.perf_counter()
            found = inverse(robot, options.link, path, q[0])
            seconds.append(time.perf_counter() - start)
        print(
            f"sequence of {frames}: first call {seconds[0]:.2f} s, then "
            f"{1e6 * np.median(seconds[1:]) / frames:.0f} us a frame, "
            f"{100 * found.reached.mean():.0f} % reached"
        )


if __name__ == "__main__":
    main()
