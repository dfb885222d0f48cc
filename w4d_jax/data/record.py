"""One clip <-> one record: bytes that give back every array bit for bit, or an InputError.

    8 bytes   b"w4d clip"
    u32       CRC-32 of everything that follows
    u32       length of the header
    header    JSON: schema, id, fps, meta, joint_names, arrays [[name, dtype, shape], ...]
    arrays    one after another, little endian, in the header's order

Videos (colour and depth, of all and of the robot alone) are stored a plane per byte, red
and blue less green, each byte less the same byte one frame earlier. That is exactly
reversible and leaves mostly zeros and small numbers, which the store's zstd then removes:
one code for colour and geometry. `bench/store.py` measures the alternatives for colour.
Lossless H.264 is 1.1 to 1.4 times smaller on DROID, 1.2 to 1.3 times larger on CALVIN, and
slower to read. Lossy H.264 at 42 to 47 dB is 2 to 10 times smaller, but errs at edges by up
to a quarter of the range, and edges are where a world model is judged: not worth a doubt.
"""

import json
import math
import struct
import zlib

import numpy as np

from w4d_jax.types import Camera, Clip, InputError, View

SCHEMA = 1
_MAGIC = b"w4d clip"
_DTYPES = {"|u1", "<f4"}
_VIDEOS = ("rgb", "depth", "robot_depth", "robot_rgb")
_LABELS = ("id", "fps", "meta", "joint_names")


def pack(clip: Clip) -> bytes:
    """The record of a clip. InputError if the clip contradicts itself."""
    check(clip)
    arrays = {"joints": clip.joints, "actions": clip.actions, "objects": clip.objects}
    for name, view in clip.views.items():
        arrays[f"{name}/K"] = view.camera.K
        arrays[f"{name}/cam_from_world"] = view.camera.cam_from_world
        arrays |= {f"{name}/{part}": getattr(view, part) for part in _VIDEOS}
    header = {"schema": SCHEMA} | {label: getattr(clip, label) for label in _LABELS}
    header["arrays"] = [[name, a.dtype.str, a.shape] for name, a in arrays.items()]
    try:
        text = json.dumps(header, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"clip {clip.id!r}: meta is not plain JSON ({error})") from error
    chunks = [_difference(a) if _is_video(name) else a for name, a in arrays.items()]
    body = b"".join([struct.pack("<I", len(text)), text, *(c.tobytes() for c in chunks)])
    return _MAGIC + struct.pack("<I", zlib.crc32(body)) + body


def unpack(record: bytes, views: tuple[str, ...] | None = None) -> Clip:
    """The clip of a record, with all its views or only those named, which saves time.

    InputError says what is wrong with the record.
    """
    if record[:8] != _MAGIC or len(record) < 16:
        raise InputError("not a clip of w4d_jax (foreign or truncated record)")
    crc, length = struct.unpack_from("<II", record, 8)
    if zlib.crc32(memoryview(record)[12:]) != crc:
        raise InputError("damaged (its CRC-32 does not match)")
    try:
        header = json.loads(record[16 : 16 + length])
        if header["schema"] != SCHEMA:
            raise InputError(f"schema {header['schema']}, this version reads {SCHEMA}")
        slices = _slices(header["arrays"], record, 16 + length)
        stored = list(
            dict.fromkeys(name.rpartition("/")[0] for name in slices if "/" in name)
        )
        if views is not None and set(views) - set(stored):
            raise InputError(f"views {list(views)}: it has {stored}")
        clip = Clip(
            id=header["id"],
            views={view: _view(view, slices) for view in views or stored},
            joint_names=tuple(header["joint_names"]),
            joints=_array("joints", slices),
            actions=_array("actions", slices),
            objects=_array("objects", slices),
            fps=header["fps"],
            meta=header["meta"],
        )
        check(clip)
    except InputError:
        raise
    # What a header that is no header of ours can do to the lines above.
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"bad header ({type(error).__name__}: {error})") from error
    return clip


def check(clip: Clip) -> None:
    """InputError unless all parts agree on frames, joints and sizes, and are finite."""

    def need(fine, text):
        if not fine:
            raise InputError(f"clip {clip.id!r}: {text}")

    def array(name, x, dtype, *shape):
        fine = isinstance(x, np.ndarray) and x.dtype == dtype and x.shape == shape
        got = f"{getattr(x, 'dtype', type(x).__name__)}{list(np.shape(x))}"
        need(fine, f"{name} is {got}, need {dtype}{list(shape)}")
        need(dtype != "float32" or np.isfinite(x).all(), f"{name} holds NaN or infinity")

    frames = len(clip.joints)
    need(isinstance(clip.id, str) and clip.id, "needs an id")
    need(frames and clip.views, f"{frames} frames, {len(clip.views)} views, need 1 or more")
    need(isinstance(clip.fps, int | float), f"fps {clip.fps!r}, need a number")
    need(0 < clip.fps < math.inf, f"fps {clip.fps}, need a number > 0")
    need(isinstance(clip.meta, dict), f"meta is a {type(clip.meta).__name__}, need a dict")
    array("joints", clip.joints, "float32", frames, len(clip.joint_names))
    array("actions", clip.actions, "float32", frames, 8)
    array("objects", clip.objects, "float32", frames, *clip.objects.shape[1:2], 7)
    for name, (camera, rgb, depth, robot_depth, robot_rgb) in clip.views.items():
        size = frames, camera.height, camera.width
        pose = (frames, 4, 4) if np.ndim(camera.cam_from_world) == 3 else (4, 4)
        array(f"{name} K", camera.K, "float32", 3, 3)
        array(f"{name} cam_from_world", camera.cam_from_world, "float32", *pose)
        array(f"{name} rgb", rgb, "uint8", *size, 3)
        array(f"{name} robot_rgb", robot_rgb, "uint8", *size, 3)
        for part, z in (("depth", depth), ("robot_depth", robot_depth)):
            array(f"{name} {part}", z, "float32", *size)
            need(z.min() >= 0, f"{name} {part} {z.min():g} m, need >= 0 (0 = unknown)")


def _is_video(name: str) -> bool:
    return name.rpartition("/")[2] in _VIDEOS


def _slices(entries, record: bytes, start: int) -> dict[str, tuple]:
    """Name -> (bytes u8[n], dtype, shape), all inside the record."""
    slices = {}
    for name, dtype, shape in entries:
        if dtype not in _DTYPES or not all(type(n) is int and n >= 0 for n in shape):
            raise InputError(f"{name!r}: {dtype!r} {shape} is no array of a clip")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if start + size > len(record):
            raise InputError(f"{name!r}: ends at byte {start + size} of {len(record)}")
        slices[name] = np.frombuffer(record, np.uint8, size, start), dtype, shape
        start += size
    if start != len(record):
        raise InputError(f"{len(record) - start} bytes too many")
    return slices


def _array(name: str, slices: dict[str, tuple]) -> np.ndarray:
    flat, dtype, shape = slices[name]
    if _is_video(name):
        return _integrate(flat, dtype, shape)
    return flat.view(dtype).reshape(shape).copy()


def _view(view: str, slices: dict[str, tuple]) -> View:
    rgb, *rest = (_array(f"{view}/{part}", slices) for part in _VIDEOS)
    K, pose = (_array(f"{view}/{part}", slices) for part in ("K", "cam_from_world"))
    _, height, width, _ = rgb.shape
    return View(Camera(width, height, K, pose), rgb, *rest)


def _difference(video: np.ndarray) -> np.ndarray:
    """u8[T,H,W,3] or f32[T,H,W] -> u8[bytes,T,H,W], mostly zeros. Bytes wrap."""
    x = video.copy()
    if x.ndim == 4:
        x[..., ::2] -= x[..., 1:2]
    planes = np.moveaxis(x.view(np.uint8).reshape(*x.shape[:3], -1), -1, 0).copy()
    planes[:, 1:] -= planes[:, :-1].copy()
    return planes


def _integrate(flat: np.ndarray, dtype: str, shape: list[int]) -> np.ndarray:
    """Undoes `_difference`."""
    planes = flat.reshape(-1, *shape[:3]).copy()
    for t in range(1, shape[0]):
        planes[:, t] += planes[:, t - 1]
    x = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view(dtype).reshape(shape)
    if x.ndim == 4:
        x[..., ::2] += x[..., 1:2]
    return x
