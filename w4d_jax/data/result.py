"""A 4D result on disk: what a world model made of an episode, exact and for the eye.

    OUT/clip.npz      rgb u8[T,H,W,3], pointmap f32[T,H,W,3] world frame metres,
                      robot_mask bool[T,H,W], K f32[3,3], cam_from_world f32[(T,)4,4]
    OUT/rgb.mp4       the video
    OUT/preview.gif   the video, and beside it the pointmap (x red, y green, z blue)
    OUT/latent.npy    on request: f[N,t,h,2w,C], the codec's latents (RGB left, pointmap
                      right) that the N chunks of a long video were decoded from

A pixel whose depth is unknown holds the camera's centre, so that its depth comes out as 0,
which is how unknown reads everywhere here. The folder appears only when it is whole.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from w4d_jax.data.video import write_gif, write_video
from w4d_jax.kin.camera import pointmap, to_world
from w4d_jax.npz import check_arrays, read_npz
from w4d_jax.types import Camera, InputError, View

_ARRAYS = {
    "rgb": "u1 T H W 3",
    "pointmap": "f4 T H W 3",
    "robot_mask": "b1 T H W",
    "K": "f4 3 3",
    "cam_from_world": "f4 4 4|f4 T 4 4",
}


class Result(NamedTuple):
    """RGB and geometry of T frames; every array numpy, on the host."""

    rgb: np.ndarray  # u8[T,H,W,3] sRGB
    pointmap: np.ndarray  # f32[T,H,W,3] metres in the world
    robot_mask: np.ndarray  # bool[T,H,W] from kinematics
    camera: Camera


def write_result(
    out, result: Result, fps: float, latent: np.ndarray | None = None, **more: np.ndarray
) -> None:
    """Writes the folder `out`, which must not exist yet; all of it or nothing.

    latent: of latent.npy, if there is to be one. more: arrays that clip.npz holds as well,
    under names of their own.
    """
    arrays = {name: getattr(result, name) for name in ("rgb", "pointmap", "robot_mask")}
    arrays |= {
        name: np.asarray(getattr(result.camera, name)) for name in ("K", "cam_from_world")
    }
    check_arrays(out, arrays, _ARRAYS)
    arrays |= more
    with new_folder(out) as folder:
        np.savez(folder / "clip.npz", **arrays)
        if latent is not None:
            np.save(folder / "latent.npy", latent)
        write_video(folder / "rgb.mp4", result.rgb, fps)
        write_gif(folder / "preview.gif", preview(result), fps)


@contextlib.contextmanager
def new_folder(out) -> Iterator[Path]:
    """A folder to fill; at the end it takes the name `out`, after an error it goes."""
    out = Path(out)
    if out.exists():
        raise InputError(f"{out}: exists already; remove it or choose another name")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out}: cannot make it ({error.strerror})") from error
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes it private
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def read_result(path) -> Result:
    """A result folder, or its clip.npz. InputError unless every part agrees."""
    path = Path(path)
    file = path / "clip.npz" if path.is_dir() else path
    x = read_npz(file, _ARRAYS)
    _, height, width, _ = x["rgb"].shape
    try:
        camera = Camera(width, height, x["K"], x["cam_from_world"])
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return Result(x["rgb"], x["pointmap"], x["robot_mask"], camera)


def view_result(view: View) -> Result:
    """What was seen, as a result: the truth that a prediction is held against."""
    points = to_world(pointmap(view.depth, view.camera.K), view.camera.cam_from_world)
    return Result(view.rgb, np.asarray(points), view.robot_depth > 0, view.camera)


def preview(result: Result) -> np.ndarray:
    """The video and its pointmap side by side, the pointmap fixed in scale over time.

    -> u8[T,H,2W,3]. Colours span the 2nd to 98th percentile of each axis.
    """
    step = max(1, result.pointmap[..., 0].size // 100_000)
    sample = result.pointmap.reshape(-1, 3)[::step]
    low, high = np.percentile(sample, [2, 98], axis=0)
    colour = (result.pointmap - low) / np.maximum(high - low, 1e-6)
    colour = np.round(255 * colour.clip(0, 1)).astype(np.uint8)
    return np.concatenate([result.rgb, colour], 2)
