"""What a video weighs in the store and how fast it is read, beside H.264; batches a second.

python bench/store.py [FILE.npz | FILE.mp4 ...]

Every rgb* and depth* array of a CALVIN-like .npz and every .mp4 is a row; a made-up clip of
49x64x64 comes first. Times are the best of five, one thread. Bytes are those of the file.
"""

import argparse
import io
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from w4d_jax.data import record
from w4d_jax.data.pipeline import batches
from w4d_jax.data.store import StoreSource, write
from w4d_jax.data.video import read_video
from w4d_jax.types import Camera, Clip, View

COPIES = 8  # records in a file: its 64 KiB blocks weigh less


def made_up(seed: int = 0, frames: int = 49, side: int = 64) -> View:
    """A slanted plane, and a box of another colour that crosses it."""
    rng = np.random.default_rng(seed)
    x = np.arange(side, dtype=np.float32) / side
    plane = np.broadcast_to(
        1 / (0.5 + 0.4 * x[:, None] + 0.1 * x), (frames, side, side)
    ).copy()
    grey = np.broadcast_to(160 * x[:, None] + 60 * x, (frames, side, side))[..., None]
    rgb = (grey + rng.normal(0, 2, (frames, side, side, 3))).clip(0, 255).astype(np.uint8)
    robot, robot_rgb = np.zeros_like(plane), np.zeros_like(rgb)
    for t, left in enumerate(np.linspace(0, side // 2, frames).astype(int)):
        box = np.s_[t, side // 4 : side // 2, left : left + side // 3]
        robot[box] = 0.8 + 0.01 * rng.random(robot[box].shape)
        plane[box], rgb[box], robot_rgb[box] = robot[box], (200, 80, 40), (210, 90, 50)
    K = np.array([[side, 0, side / 2], [0, side, side / 2], [0, 0, 1]], np.float32)
    pose = np.eye(4, dtype=np.float32)
    pose[2, 3] = 1
    return View(Camera(side, side, K, pose), rgb, plane, robot, robot_rgb)


def best(function, times: int = 5):
    """(result, seconds of the fastest call)."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def ours(x: np.ndarray, folder: str) -> tuple[float, float]:
    """(bytes, seconds to read) of one video in a shard."""
    path = str(Path(folder) / "x.arrayrecord")
    writer = ArrayRecordWriter(path, "group_size:1,zstd:3")
    for _ in range(COPIES):
        writer.write(record._difference(x).tobytes())
    writer.close()
    reader = ArrayRecordReader(path, "readahead_buffer_size:0,max_parallelism:0")

    def read():
        flat = np.frombuffer(reader.read([0])[0], np.uint8)
        return record._integrate(flat, x.dtype.str, list(x.shape))

    got, seconds = best(read)
    assert got.tobytes() == x.tobytes()
    reader.close()
    return Path(path).stat().st_size / COPIES, seconds


def h264(rgb: np.ndarray, codec: str, pixels: str, options: dict):
    """(bytes, seconds to read, decoded) of one video in memory."""
    data = io.BytesIO()
    with av.open(data, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width = rgb.shape[1:3]
        stream.pix_fmt = pixels
        for frame in rgb:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())

    def read():
        with av.open(io.BytesIO(data.getvalue())) as container:
            container.streams.video[0].thread_count = 1
            return np.stack(
                [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
            )

    got, seconds = best(read)
    return len(data.getvalue()), seconds, got


def row(name: str, x: np.ndarray, folder: str) -> None:
    size, seconds = ours(x, folder)
    text = f"{name:24}{x.nbytes:12,}{size:12,.0f} {1e3 * seconds:6.1f} ms"
    if x.dtype == np.uint8:
        lossless = {"qp": "0", "preset": "veryfast"}
        size, seconds, got = h264(x, "libx264rgb", "rgb24", lossless)
        assert np.array_equal(got, x)
        text += f"{size:12,} {1e3 * seconds:6.1f} ms"
        lossy = {"crf": "8", "preset": "veryfast"}
        size, seconds, got = h264(x, "libx264", "yuv444p", lossy)
        error = np.abs(got.astype(float) - x)
        psnr = 20 * np.log10(255 / np.sqrt((error**2).mean()))
        text += (
            f"{size:12,} {1e3 * seconds:6.1f} ms {psnr:5.1f} dB, worst {error.max():.0f}"
        )
    print(text)


def pipeline(folder: str, clips: int = 32) -> None:
    """Clips a second through the whole pipeline, from disk, pages warm."""

    def clip(i: int) -> Clip:
        zeros = [np.zeros((49, n), np.float32) for n in (8, 8)]
        objects = np.zeros((49, 0, 7), np.float32)
        view = {"front": made_up(i)}
        return Clip(str(i), view, tuple("abcdefgh"), *zeros, objects, 10, {"reach": 1.2})

    path = Path(folder) / "store"
    write(path, [clip(i) for i in range(clips)], label="made up")
    size = sum(file.stat().st_size for file in path.iterdir()) / clips
    print(
        f"\nstore of {clips} made-up clips of 49x64x64, one view: {size:,.0f} bytes a clip"
    )
    for frames, side, threads in ((49, 64, 1), (49, 64, 2), (9, 32, 2)):
        shape = {"frames": frames, "height": side, "width": side}
        data = iter(
            batches(StoreSource(path), batch=8, view="front", threads=threads, **shape)
        )
        next(data)
        start = time.perf_counter()
        for _ in range(16):
            next(data)
        speed = 128 / (time.perf_counter() - start)
        print(f"batches of {frames}x{side}x{side}, {threads} threads: {speed:.0f} clips/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    files = parser.parse_args().files
    print(f"{'video':24}{'raw':>12}{'store':>12} {'read':>9}", end="")
    print(f"{'H.264 qp 0':>12} {'read':>9}{'H.264 crf 8':>12} {'read':>9}")
    with tempfile.TemporaryDirectory() as folder:
        view = made_up()
        for part in ("rgb", "depth", "robot_depth"):
            row(f"made up, {part}", getattr(view, part), folder)
        for file in files:
            if file.suffix == ".mp4":
                row(f"{file.parent.name}/{file.name}", read_video(file)[0], folder)
                continue
            for name, x in np.load(file).items():
                if name.startswith("rgb"):
                    row(name, x, folder)
                elif name.startswith("depth"):
                    row(name, x.astype(np.float32) / np.float32(1e4), folder)
        pipeline(folder)


if __name__ == "__main__":
    main()
