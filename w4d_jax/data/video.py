"""RGB video files, read and written through PyAV: no ffmpeg on the machine is needed.

Files written here are for the eye (H.264 4:2:0; 35 dB on strong colours at 200x200, the
chroma's halves the cause); numbers that matter are kept losslessly beside them.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import Interpolation
from PIL import Image

from w4d_jax.types import InputError

# By default libswscale rounds down, which darkens every pixel by one level each way.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def read_video(path) -> tuple[np.ndarray, float]:
    """(u8[T,H,W,3] sRGB, frames per second) of the first video stream of a file."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"video {path}: holds no video stream")
            stream = container.streams.video[0]
            frames = [
                f.reformat(format="rgb24", interpolation=EXACT).to_ndarray()
                for f in container.decode(stream)
            ]
            promised, rate = stream.frames, stream.average_rate
    except (FFmpegError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"video {path}: cannot read it ({reason})") from error
    sizes = {f.shape for f in frames}
    if len(sizes) != 1:
        raise InputError(f"video {path}: frames of {len(sizes)} sizes, need exactly one")
    if promised and len(frames) != promised:
        raise InputError(
            f"video {path}: {len(frames)} of {promised} frames decode; damaged?"
        )
    if not rate:
        raise InputError(f"video {path}: gives no frame rate")
    return np.stack(frames), float(rate)


def write_video(path, rgb: np.ndarray, fps: float) -> None:
    """u8[T,H,W,3] as an .mp4 that any player shows; odd sides grow by one repeated line."""
    _, height, width, _ = rgb.shape
    rgb = np.pad(rgb, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with av.open(str(path), "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "14"})
        stream.height, stream.width = rgb.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in rgb:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            image = image.reformat(format="yuv420p", interpolation=EXACT)
            container.mux(stream.encode(image))
        container.mux(stream.encode())


def write_gif(path, rgb: np.ndarray, fps: float) -> None:
    """u8[T,H,W,3] as a GIF that loops; browsers round to hundredths of a second."""
    first, *rest = (Image.fromarray(frame) for frame in rgb)
    milliseconds = max(20, round(1000 / fps))
    first.save(
        Path(path), "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0
    )
