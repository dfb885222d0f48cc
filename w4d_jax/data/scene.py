"""One moment of a clip, seen by several cameras: data of WristWorld's first stage."""

import dataclasses
from typing import Any

import numpy as np

from w4d_jax.data.pipeline import cut, pick
from w4d_jax.data.wrist import check
from w4d_jax.types import InputError, View


@dataclasses.dataclass(frozen=True)
class SceneSamples:
    """Item i is frame i % T of the T frames taken from clip i // T.

    Of the anchors rgb u8[V,H,W,3], depth f32[V,H,W] (metres; 0 = unknown), K f32[V,3,3],
    cam_from_world f32[V,4,4]; of the wrist camera the same without V, "wrist_" before their
    names; id str: "clip/frame".
    """

    source: Any  # random access to Clip
    anchors: tuple[str, ...]
    wrist: str
    frames: int
    height: int
    width: int

    def __post_init__(self):
        if not self.anchors or self.wrist in self.anchors:
            raise InputError(
                f"anchors {list(self.anchors)}, wrist {self.wrist!r}: need one or more "
                "anchors, and a wrist view that is none of them"
            )

    def __len__(self) -> int:
        return len(self.source) * self.frames

    def __getitem__(self, index: int) -> dict:
        index, frame = divmod(index, self.frames)
        clip = self.source[index]
        check(clip, self.anchors, self.wrist)
        at, size = pick(clip, self.frames)[[frame]], (self.height, self.width)
        anchors = [_still(cut(clip.views[name], at, *size)) for name in self.anchors]
        wrist = _still(cut(clip.views[self.wrist], at, *size))
        return {
            **{name: np.stack([a[name] for a in anchors]) for name in wrist},
            **{f"wrist_{name}": value for name, value in wrist.items()},
            "id": f"{clip.id}/{at[0]}",
        }


def _still(view: View) -> dict[str, np.ndarray]:
    """The only frame of a view."""
    return {
        "rgb": view.rgb[0],
        "depth": view.depth[0],
        "K": view.camera.K,
        "cam_from_world": view.camera.cam_from_world[0],
    }
