"""Draws a robot as a camera would see it, from its joints alone.

    python tools/render_robot.py --robot panda.urdf --joints q.npz \\
        --camera cam.json --out robot.npz

q.npz holds joint_names and q [T,J] (or what else kin/action.py reads); cam.json one camera
pose, or T. robot.npz receives

    pointmap  f32[T,H,W,3]  metres in each frame's camera frame, 0 off the robot
    mask      bool[T,H,W]
    depth     f32[T,H,W]    metres along the optical axis, 0 off the robot
    link      i32[T,H,W]    the robot's link, -1 off the robot
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from w4d_jax.kin import Camera, load_robot, render_robot
from w4d_jax.kin.action import read_actions
from w4d_jax.types import InputError


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--robot", required=True, metavar="URDF", help="URDF or MJCF")
    parser.add_argument("--joints", required=True, metavar="NPZ")
    parser.add_argument("--camera", required=True, metavar="JSON")
    parser.add_argument("--out", required=True, metavar="NPZ")
    args = parser.parse_args(arguments)
    try:
        camera = Camera.from_json(args.camera)
        robot = load_robot(args.robot)
        q, _ = read_actions(args.joints, robot)
        view = render_robot(robot, q, camera)
        arrays = {name: np.asarray(array) for name, array in view._asdict().items()}
        if not arrays["mask"].any():
            raise InputError(
                f"camera {args.camera}: no pixel of the robot in any of {len(q)} frames; "
                f"check cam_from_world (world = the robot's base, OpenCV axes)"
            )
        write(Path(args.out), arrays)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An .npz under its name only when it is whole."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            np.savez(file, **arrays)
        draft.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot write it ({error.strerror})") from error
    finally:
        draft.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
