"""Kinema4D: image + robot + camera + actions -> a 4D video.

    python tools/simulate.py --checkpoint WORKDIR --robot R.urdf --camera cam.json \\
        --image first.png --actions actions.npz --out OUT

OUT becomes a folder with clip.npz (RGB, pointmap in metres in the robot's base frame, robot
mask, camera), rgb.mp4 and preview.gif. The actions hold as many frames as the model makes;
frame 0 is the image.
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np
from PIL import Image, UnidentifiedImageError

from w4d_jax.data.result import write_result
from w4d_jax.kin import Camera, load_robot
from w4d_jax.kin.action import read_actions
from w4d_jax.sample.simulate import known_batch, results
from w4d_jax.train.trained import load_trained
from w4d_jax.types import InputError


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, metavar="WORKDIR")
    parser.add_argument("--robot", required=True, help="URDF or MJCF")
    parser.add_argument(
        "--camera", required=True, help="JSON: width, height, K, cam_from_world"
    )
    parser.add_argument(
        "--image", required=True, help="the first frame, of the camera's size"
    )
    parser.add_argument(
        "--actions", required=True, help="npz: joints or end-effector poses"
    )
    parser.add_argument("--ee-link", help="link that ee_pose speaks of (default: the hand)")
    parser.add_argument("--out", required=True, help="folder to make; must not exist")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fps", type=float, default=4.0, help="of the video files")
    args = parser.parse_args(arguments)
    try:
        simulate(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(args.out)
    return 0


def simulate(args) -> None:
    """Reads and checks everything first; the model is loaded when nothing can fail."""
    if Path(args.out).exists():
        raise InputError(
            f"--out {args.out}: exists already; remove it or choose another name"
        )
    robot = load_robot(args.robot)
    camera = Camera.from_json(args.camera)
    image = read_image(args.image)
    joints, _ = read_actions(args.actions, robot, args.ee_link)
    run = load_trained(args.checkpoint)
    data = run.config.data
    if len(joints) != data.frames:
        raise InputError(
            f"actions: {len(joints)} frames, the model makes {data.frames} "
            "(frame 0 is the image); give as many, spread over the act as in training"
        )
    batch = known_batch(image, camera, robot, joints, data.height, data.width)
    made = jax.jit(run.task.sample)(
        run.params, run.frozen, batch, jax.random.key(args.seed)
    )
    write_result(args.out, results(made, batch)[0], args.fps)


def read_image(path) -> np.ndarray:
    """An image file as u8[H,W,3]."""
    try:
        with Image.open(path) as file:
            return np.asarray(file.convert("RGB"))
    except (
        OSError,
        UnidentifiedImageError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"image {path}: cannot read it ({reason})") from error


if __name__ == "__main__":
    sys.exit(main())
