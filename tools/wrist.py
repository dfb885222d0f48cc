"""WristWorld: what the wrist camera sees, from anchor views alone.

    python tools/wrist.py --robot R.urdf --joints q.npz --wrist-link NAME \\
        --wrist-camera cam.json --scene OUT1 [OUT2 ...] --out OUT

The wrist camera stands where kinematics put it. cam.json is a camera whose world is the
wrist link: width, height, K, and as cam_from_world the fixed camera-from-link transform.
Scenes are results (folders with clip.npz: recorded, or made by tools/simulate.py) in the
frame of the robot's base, of as many frames as the joints, or of one that stands still. The
joints may also come as end-effector poses, as tools/simulate.py takes them.

OUT becomes a folder with clip.npz (RGB, pointmap in metres, robot mask, camera; `valid`:
where anything is known), rgb.mp4 and preview.gif.
"""

import argparse
import sys
from pathlib import Path

from w4d_jax.data.result import read_result, write_result
from w4d_jax.kin import Camera, load_robot
from w4d_jax.kin.action import read_actions
from w4d_jax.kin.handeye import carried
from w4d_jax.sample.exact import exact_map
from w4d_jax.types import InputError


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--robot", required=True, help="URDF or MJCF")
    parser.add_argument("--joints", required=True, metavar="NPZ")
    parser.add_argument("--ee-link", help="link that ee_pose speaks of (default: the hand)")
    parser.add_argument("--wrist-link", required=True, help="link that carries the camera")
    parser.add_argument("--wrist-camera", required=True, metavar="JSON")
    parser.add_argument("--scene", required=True, nargs="+", help="results to look at")
    parser.add_argument("--out", required=True, help="folder to make; must not exist")
    parser.add_argument("--fps", type=float, default=4.0, help="of the video files")
    args = parser.parse_args(arguments)
    try:
        look(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(args.out)
    return 0


def look(args) -> None:
    if Path(args.out).exists():
        raise InputError(
            f"--out {args.out}: exists already; remove it or choose another name"
        )
    robot = load_robot(args.robot)
    mount = Camera.from_json(args.wrist_camera)
    joints, _ = read_actions(args.joints, robot, args.ee_link)
    camera = carried(robot, joints, args.wrist_link, mount)
    scenes = [read_result(path) for path in args.scene]
    seen, valid = exact_map(scenes, robot, joints, camera)
    if not valid.any():
        raise InputError(
            f"wrist camera: sees nothing in any of {len(joints)} frames; check its "
            f"cam_from_world (camera from link {args.wrist_link}, OpenCV axes), and that "
            "scenes stand in the frame of the robot's base"
        )
    write_result(args.out, seen, args.fps, valid=valid)


if __name__ == "__main__":
    sys.exit(main())
