"""Many short videos as one moving picture, for the eye."""

from pathlib import Path

import numpy as np

from w4d_jax.data.video import write_gif


def save_preview(path: Path, columns: list[np.ndarray], enlarge: int = 2, fps: float = 4.0):
    """Writes a GIF: examples below each other, `columns` side by side, frames over time.

    columns: u8[B,T,H,W,3] each, of one shape.
    """
    rows = [np.concatenate(list(video), axis=1) for video in columns]  # u8[T,B*H,W,3]
    frames = np.concatenate(rows, axis=2).repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    write_gif(draft, frames, fps)
    draft.replace(path)


def image(x) -> np.ndarray:
    """Values f[...,3] in [-1, 1] as u8[...,3]; of a pointmap x is red, y green, z blue."""
    return np.clip(np.round((np.asarray(x) + 1) * 127.5), 0, 255).astype(np.uint8)
