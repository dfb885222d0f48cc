"""Writes a store of clips, which training reads, and takes single clips out again.

    python tools/prepare.py sim --count 1000 --out runs/sim
    python tools/prepare.py calvin --data DIR --robot panda.urdf --out runs/calvin
    python tools/prepare.py droid --data DIR --robot panda.urdf --out runs/droid \\
        --camera exterior_1=cam.json --uncalibrated wrist
    python tools/prepare.py clip --store runs/sim --index 3 --view front --out runs/clip

The robot's surface is rendered here, once. A run that was stopped goes on where it was when
it is started again. `clip` takes one clip out: truth/ as a result folder, and what
tools/simulate.py asks for (camera.json, first.png, q.npz, actions.npz).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from w4d_jax.data.calvin import CalvinSource
from w4d_jax.data.droid import VIEWS, DroidSource
from w4d_jax.data.pipeline import cut, pick
from w4d_jax.data.result import new_folder, view_result, write_result
from w4d_jax.data.sim import SimSource
from w4d_jax.data.store import StoreSource, write
from w4d_jax.types import InputError


def main(arguments=None) -> int:
    args = parser().parse_args(arguments)
    try:
        args.run(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = top.add_subparsers(required=True, metavar="sim|calvin|droid|clip")

    sim = kinds.add_parser("sim", help="simulated episodes")
    sim.add_argument("--count", type=int, required=True, help="episodes")
    sim.add_argument("--seed", type=int, default=0)
    sim.add_argument("--frames", type=int, default=49)
    sim.add_argument("--height", type=int, default=128)
    sim.add_argument("--width", type=int, default=128)
    sim.set_defaults(run=store, source=simulated)

    calvin = kinds.add_parser("calvin", help="a folder of CALVIN episodes as .npz")
    droid = kinds.add_parser("droid", help="DROID episodes in Ctrl-World's layout")
    for real in (calvin, droid):
        real.add_argument("--data", required=True, metavar="DIR")
        real.add_argument("--robot", required=True, metavar="URDF")
    calvin.set_defaults(run=store, source=lambda a: CalvinSource(a.data, a.robot))
    pairs = {"action": "append", "default": [], "type": pair}
    droid.add_argument(
        "--camera",
        metavar="VIEW=JSON",
        **pairs,
        help=f"camera of a view ({', '.join(VIEWS)}); {{id}} in it stands for the episode",
    )
    droid.add_argument(
        "--mount", metavar="VIEW=LINK", **pairs, help="the camera rides on this link"
    )
    droid.add_argument(
        "--uncalibrated", metavar="VIEW", action="append", default=[], choices=VIEWS,
        help="read a view without geometry",
    )  # fmt: skip
    droid.set_defaults(run=store, source=recorded_droid)
    for kind in (sim, calvin, droid):
        kind.add_argument(
            "--out", required=True, metavar="DIR", help="the store, a new folder"
        )
        kind.add_argument("--shard-clips", type=int, default=64, help="clips in a file")

    clip = kinds.add_parser("clip", help="take one clip out of a store")
    clip.add_argument("--store", required=True, metavar="DIR")
    clip.add_argument("--index", type=int, required=True)
    clip.add_argument("--view", required=True)
    clip.add_argument("--frames", type=int, help="uniformly over the clip (default: all)")
    clip.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    clip.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    clip.set_defaults(run=take)
    return top


def pair(text: str) -> tuple[str, str]:
    view, equals, value = text.partition("=")
    if not equals or view not in VIEWS or not value:
        raise argparse.ArgumentTypeError(f"{text!r}: need VIEW=..., VIEW one of {VIEWS}")
    return view, value


def simulated(args):
    return SimSource(args.seed, args.count, args.frames, args.height, args.width)


def recorded_droid(args):
    return DroidSource(
        args.data, args.robot, dict(args.camera), dict(args.mount), args.uncalibrated
    )


def store(args) -> None:
    """Writes all of a source and says what it weighs."""
    source = args.source(args)
    if args.shard_clips < 1:
        raise InputError(f"--shard-clips {args.shard_clips}: need 1 or more")

    def progress(todo: range):
        return tqdm(todo, initial=todo.start, total=todo.stop, unit="clip")

    label = repr(source)
    write(args.out, source, label=label, shard_clips=args.shard_clips, progress=progress)
    size = sum(file.stat().st_size for file in Path(args.out).iterdir())
    clip = StoreSource(args.out)[0]
    raw = sum(sum(x.nbytes for x in view[1:]) for view in clip.views.values())
    print(
        f"{args.out}: {len(source)} clips, {size / len(source):,.0f} bytes a clip on disk; "
        f"clip 0 has {len(clip.joints)} frames, views {', '.join(clip.views)}, "
        f"{raw:,} bytes in memory"
    )


def take(args) -> None:
    """One view of one clip as a result folder and as the input of tools/simulate.py."""
    source = StoreSource(args.store, views=(args.view,))
    if not 0 <= args.index < len(source):
        raise InputError(
            f"--index {args.index}: {args.store} has clips 0..{len(source) - 1}"
        )
    clip = source[args.index]
    view = clip.views[args.view]
    at = pick(clip, len(clip.joints) if args.frames is None else args.frames)
    view = cut(view, at, *(args.size or (view.camera.height, view.camera.width)))
    with new_folder(args.out) as out:
        fps = clip.fps * len(at) / len(clip.joints)
        write_result(out / "truth", view_result(view), fps)
        view.camera.to_json(out / "camera.json")
        Image.fromarray(view.rgb[0]).save(out / "first.png")
        names, (ee_pose, gripper) = (
            np.array(clip.joint_names),
            np.split(clip.actions[at], [7], 1),
        )
        np.savez(out / "q.npz", joint_names=names, q=clip.joints[at])
        np.savez(out / "actions.npz", ee_pose=ee_pose, gripper=gripper[:, 0])
    print(f"{args.out}: {clip.id}, {args.view}, {len(at)} frames")


if __name__ == "__main__":
    sys.exit(main())
