"""Kinema4D: image + robot + camera + actions -> a 4D video.

    python tools/simulate.py --checkpoint WORKDIR --robot R.urdf --camera cam.json \\
        --image first.png --actions actions.npz --out OUT

OUT becomes a folder with clip.npz (RGB, pointmap in metres in the robot's base frame, robot
mask, camera), rgb.mp4 and preview.gif. Frame 0 of the actions is the image. Actions of more
frames than the model makes at a time are simulated chunk by chunk, each from the last image
of the one before. Several clips at once load the model once: give as many images, actions
and outs; robot and camera are the same for all.

--latents adds latent.npy, f[N,t,h,2w,C]: for each of the N chunks the codec's latent, RGB
left and pointmap right, that the videos were decoded from, before anything was rounded.
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
from w4d_jax.kin.gripper import grip_actions
from w4d_jax.sample.simulate import rollout
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
        "--image", required=True, nargs="+", help="the first frame, of the camera's size"
    )
    parser.add_argument(
        "--actions", required=True, nargs="+", help="npz: joints or end-effector poses"
    )
    parser.add_argument("--ee-link", help="link that ee_pose speaks of (default: the hand)")
    parser.add_argument(
        "--out", required=True, nargs="+", help="folder to make; must not exist"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fps", type=float, default=4.0, help="of the video files")
    parser.add_argument(
        "--latents",
        nargs="?",
        const="float32",
        choices=("float32", "float16"),
        help="write the sampled latents too (float32 unless said)",
    )
    args = parser.parse_args(arguments)
    try:
        simulate(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*args.out, sep="\n")
    return 0


def simulate(args) -> None:
    """Reads and checks everything first; the model is loaded when nothing can fail."""
    counts = len(args.image), len(args.actions), len(args.out)
    if len(set(counts)) > 1:
        raise InputError(
            "--image, --actions, --out: {} images, {} actions, {} outs; need as many of "
            "each".format(*counts)
        )
    for i, out in enumerate(args.out):
        if Path(out).exists() or out in args.out[:i]:
            raise InputError(
                f"--out {out}: exists already; remove it or choose another name"
            )
    robot = load_robot(args.robot)
    camera = Camera.from_json(args.camera)
    images = [read_image(path) for path in args.image]
    motions = [read_actions(path, robot, args.ee_link)[0] for path in args.actions]
    run = load_trained(args.checkpoint)
    size = tuple(run.config.data[name] for name in ("frames", "height", "width"))
    sample = jax.jit(run.task.sample)
    hand = run.config.condition.get("outcomes", False)  # then it is told of the grip

    for image, joints, out in zip(images, motions, args.out, strict=True):
        latents = []

        def draw(batch, chunk, latents=latents):
            key = jax.random.fold_in(jax.random.key(args.seed), chunk)
            video = sample(run.params, run.frozen, batch, key)
            if args.latents:
                latents.append(np.asarray(video.latent[0], args.latents))
            return video

        actions = grip_actions(robot, joints) if hand else None
        made = rollout(draw, image, camera, robot, joints, size, actions)
        write_result(out, made, args.fps, np.stack(latents) if latents else None)


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
