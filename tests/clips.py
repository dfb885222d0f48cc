"""Clips that tests are made of."""

import numpy as np

from w4d_jax.types import Camera, Clip, View


def make_clip(seed, frames=5, height=7, width=9, moving=True, objects=2) -> Clip:
    """Noise in every array: any lost bit shows."""
    rng = np.random.default_rng(seed)

    def f32(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def view(moving):
        pose = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
        pose[:, :3, 3] = f32(frames, 3)
        K = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], np.float32)
        return View(
            Camera(width, height, K, pose if moving else pose[0]),
            rng.integers(0, 256, (frames, height, width, 3), np.uint8),
            np.abs(f32(frames, height, width)),
            np.abs(f32(frames, height, width)),
            rng.integers(0, 256, (frames, height, width, 3), np.uint8),
        )

    return Clip(
        id=f"noise/{seed}",
        views={"front": view(False), "wrist": view(moving)},
        joint_names=("a", "b", "ü"),
        joints=f32(frames, 3),
        actions=f32(frames, 8),
        objects=f32(frames, objects, 7),
        fps=12.5,
        meta={
            "task": "pick",
            "success": True,
            "colours": [[0.1, 0.2, 0.3]],
            "none": None,
            "reach": 4.0,
        },
    )


def assert_same(a: Clip, b: Clip):
    assert (a.id, a.fps, a.meta, a.joint_names) == (b.id, b.fps, b.meta, b.joint_names)
    assert list(a.views) == list(b.views)
    pairs = [(a.joints, b.joints), (a.actions, b.actions), (a.objects, b.objects)]
    for left, right in zip(a.views.values(), b.views.values(), strict=True):
        assert (left.camera.width, left.camera.height) == (
            right.camera.width,
            right.camera.height,
        )
        pairs += [
            (left.camera.K, right.camera.K),
            (left.camera.cam_from_world, right.camera.cam_from_world),
        ]
        pairs += list(zip(left[1:], right[1:], strict=True))
    for x, y in pairs:
        assert x.dtype == y.dtype and x.shape == y.shape
        assert x.tobytes() == y.tobytes()
