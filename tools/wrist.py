"""WristWorld: what the wrist camera sees, from anchor views alone.

    python tools/wrist.py --anchors front.mp4 side.mp4 --geometry RUN --video RUN --out OUT

The geometry model (configs/wristworld_geometry.py) says where the points and the wrist
camera are, in the frame of the first anchor's camera and in a unit of its own. The points
as that camera sees them are the condition map, which the video model
(configs/wristworld_video.py) completes; without --video the map itself is written.

    python tools/wrist.py --robot R.urdf --joints q.npz --wrist-link NAME \\
        --wrist-camera cam.json --scene OUT1 [OUT2 ...] [--video RUN] --out OUT

The wrist camera stands where kinematics put it. cam.json is a camera whose world is the
wrist link: width, height, K, and as cam_from_world the fixed camera-from-link transform.
Scenes are results (folders with clip.npz: recorded, or made by tools/simulate.py) in the
frame of the robot's base, of as many frames as the joints, or of one that stands still. The
joints may also come as end-effector poses, as tools/simulate.py takes them. With --geometry
the camera that is predicted from the scenes' pictures is held against the exact one, and
with --truth the exact one against a recorded wrist view.

OUT becomes a folder with clip.npz (RGB, the map's pointmap, robot mask, camera; `map`: the
map's RGB; `valid`: where it knows anything; of a predicted scene also `points` and
`confidence` of the anchors), rgb.mp4 and preview.gif.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np

from w4d_jax.data.pipeline import frame, resize
from w4d_jax.data.result import Result, read_result, write_result
from w4d_jax.data.video import read_video
from w4d_jax.evaluate.wrist import field_errors, metres, pose_errors, scaled
from w4d_jax.kin import Camera, load_robot
from w4d_jax.kin.action import read_actions
from w4d_jax.kin.camera import pointmap
from w4d_jax.kin.handeye import carried
from w4d_jax.sample.exact import exact_map
from w4d_jax.sample.predicted import (
    anchor_view,
    described,
    predicted_map,
    wrist_camera,
)
from w4d_jax.sample.preview import image
from w4d_jax.sample.wrist import wrist_video
from w4d_jax.train import wristworld
from w4d_jax.train.trained import Trained, load_trained
from w4d_jax.types import InputError


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    seen = parser.add_mutually_exclusive_group(required=True)
    seen.add_argument("--anchors", nargs="+", metavar="MP4", help="videos to look at")
    seen.add_argument("--scene", nargs="+", metavar="RESULT", help="results to look at")
    parser.add_argument(
        "--geometry", metavar="RUN", help="predicts points and wrist camera"
    )
    parser.add_argument("--video", metavar="RUN", help="completes the condition map")
    parser.add_argument("--robot", help="URDF or MJCF")
    parser.add_argument("--joints", metavar="NPZ")
    parser.add_argument("--ee-link", help="link that ee_pose speaks of (default: the hand)")
    parser.add_argument("--wrist-link", metavar="NAME", help="link that carries the camera")
    parser.add_argument("--wrist-camera", metavar="JSON")
    parser.add_argument("--truth", metavar="RESULT", help="the wrist view as recorded")
    parser.add_argument("--out", required=True, help="folder to make; must not exist")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--fps", type=float, help="of the files (default: that of --anchors; 4 of --scene)"
    )
    args = parser.parse_args(arguments)
    try:
        if Path(args.out).exists():
            raise InputError(
                f"--out {args.out}: exists already; remove it or choose another name"
            )
        if args.anchors:
            from_videos(args)
        else:
            from_scenes(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(args.out)
    return 0


# ------ the two ways


def from_videos(args) -> None:
    """Where the wrist camera is, is predicted."""
    if not args.geometry or args.robot:
        raise InputError("--anchors: need --geometry; with --robot give --scene instead")
    videos = [read_video(path) for path in args.anchors]
    shapes = [rgb.shape[:3] for rgb, _ in videos]
    if len(set(shapes)) > 1:
        have = ", ".join("x".join(map(str, shape)) for shape in shapes)
        raise InputError(f"--anchors: videos of {have} (TxHxW), need one length and size")
    geometry = loaded(args.geometry, "wristworld_geometry", len(videos))
    video = args.video and loaded(args.video, "wristworld_video", len(videos))
    rgb = np.stack([fitted(x, geometry) for x, _ in videos], 1)
    scene = described(geometry.task.sample, geometry.params, geometry.frozen, rgb)
    camera = wrist_camera(scene)
    if video:
        camera = camera.resized(video.config.data.height, video.config.data.width)
    seen, valid = predicted_map(scene, rgb, camera)
    more = {"points": scene.points, "confidence": scene.confidence}
    write(args, seen, valid, [x for x, _ in videos], video, videos[0][1], more)


def from_scenes(args) -> None:
    """Where the wrist camera is, is known."""
    for name in ("robot", "joints", "wrist_link", "wrist_camera"):
        if not getattr(args, name):
            raise InputError(f"--scene: need --{name.replace('_', '-')} as well")
    robot = load_robot(args.robot)
    mount = Camera.from_json(args.wrist_camera)
    joints, _ = read_actions(args.joints, robot, args.ee_link)
    exact = camera = carried(robot, joints, args.wrist_link, mount)
    scenes = [read_result(path) for path in args.scene]
    video = args.video and loaded(args.video, "wristworld_video", len(scenes))
    if video:
        _, camera = frame(camera, video.config.data.height, video.config.data.width)
    seen, valid = exact_map(scenes, robot, joints, camera)
    if not valid.any():
        raise InputError(
            f"wrist camera: sees nothing in any of {len(joints)} frames; check its "
            f"cam_from_world (camera from link {args.wrist_link}, OpenCV axes), and that "
            "scenes stand in the frame of the robot's base"
        )
    if args.truth:
        recorded(args, exact)
    if args.geometry:
        predicted(args, scenes, exact)
    still = [np.broadcast_to(x.rgb, (len(joints), *x.rgb.shape[1:])) for x in scenes]
    write(args, seen, valid, still, video, 4.0, {})


def recorded(args, exact: Camera) -> None:
    """Says how far the exact wrist camera is from the recorded one."""
    true = read_result(args.truth).camera.cam_from_world
    if true.shape != np.shape(exact.cam_from_world):
        raise InputError(
            f"--truth {args.truth}: cameras {true.shape}, the joints give "
            f"{np.shape(exact.cam_from_world)}"
        )
    apart = pose_errors(exact.cam_from_world, true)
    place, turn = (apart[name].max() for name in ("translation", "rotation"))
    print(
        f"exact wrist camera, at most over {len(true)} frames: {place:.2g} m, {turn:.2g} "
        "degrees from the recorded one"
    )


def predicted(args, scenes: list[Result], exact: Camera) -> None:
    """Says how far the predicted wrist camera is from the exact one."""
    run = loaded(args.geometry, "wristworld_geometry", len(scenes))
    frames, size = (
        len(exact.cam_from_world),
        (run.config.data.height, run.config.data.width),
    )
    views = [anchor_view(scene, frames, *size) for scene in scenes]
    rgb = np.stack([view.rgb for view in views], 1)
    scene = described(run.task.sample, run.params, run.frozen, rgb)
    first = views[0].camera.cam_from_world
    points = np.asarray(pointmap(views[0].depth, views[0].camera.K))
    units = map(metres, scene.points[:, 0], points, views[0].depth > 0)
    said = np.stack(list(map(scaled, scene.cam_from_world, units)))
    apart = pose_errors(said, exact.cam_from_world @ np.linalg.inv(first))
    field = field_errors(scene.K, frame(exact, *size)[1].K, *size)
    place, turn = (apart[name].mean() for name in ("translation", "rotation"))
    print(
        f"predicted wrist camera, mean of {frames} frames: {place:.4g} m, {turn:.4g} "
        f"degrees, fields of view {field.mean():.3g} degrees from the exact one"
    )


# ------ their parts


def loaded(workdir, task: str, anchors: int) -> Trained:
    """The run, if it is of the task and of so many anchors."""
    run = load_trained(workdir)
    if run.config.task != task:
        raise InputError(f"{workdir}: a run of {run.config.task}, need one of {task}")
    data = run.config.data
    takes = len(data.anchors) if task == "wristworld_video" else len(data.view) - 1
    if takes != anchors:
        raise InputError(f"{workdir}: takes {takes} anchors, given {anchors}")
    return run


def fitted(rgb: np.ndarray, run: Trained) -> np.ndarray:
    """A video u8[T,H,W,3] cut to the aspect of the run's data and resized."""
    size = run.config.data.height, run.config.data.width
    _, height, width, _ = rgb.shape
    box, _ = frame(Camera(width, height, np.eye(3), np.eye(4)), *size)
    return resize(rgb, box, *size)


def write(args, seen: Result, valid, anchors, video, fps: float, more) -> None:
    """The map, completed by the video model if there is one."""
    more = {"map": seen.rgb, "valid": valid, **more}
    if video:
        told = {
            "map": seen.rgb[None],
            "valid": valid[None],
            "anchors": np.stack([fitted(rgb, video) for rgb in anchors])[None],
        }
        complete = jax.jit(partial(wrist_video, wristworld.build(video.config)))
        made = complete(video.params, video.frozen, told, jax.random.key(args.seed))
        seen = seen._replace(rgb=image(made.rgb[0]))
    write_result(args.out, seen, args.fps or fps, **more)


if __name__ == "__main__":
    sys.exit(main())
