"""Correspondences: against ray casting in float64, and from tracks."""

import jax
import numpy as np
import pytest
from scenes import cast, scene

from w4d_jax.kin.match import exact_pairs, pairs_from_tracks, pixels_in


@pytest.fixture(scope="module")
def views():
    return scene()


@pytest.fixture(scope="module")
def dense(views):
    anchors, wrist = views
    return jax.device_get(jax.jit(jax.vmap(pixels_in, (0, None)))(anchors, wrist))


def test_pixels_land_where_float64_puts_them_and_are_seen_where_nothing_is_before_them(
    views, dense
):
    anchors, wrist = views
    uv, seen = dense
    K, pose = wrist.K.astype(np.float64), wrist.cam_from_world.astype(np.float64)
    height, width = wrist.depth.shape
    hidden = 0
    for i in range(2):
        rows, columns = np.mgrid[: seen.shape[1], : seen.shape[2]]
        rays = np.stack([columns + 0.5, rows + 0.5, np.ones(rows.shape)], -1)
        points = rays @ np.linalg.inv(anchors.K[i].astype(np.float64)).T
        points *= anchors.depth[i, ..., None]
        back = np.linalg.inv(anchors.cam_from_world[i].astype(np.float64))
        points = points @ back[:3, :3].T + back[:3, 3]
        points = points @ pose[:3, :3].T + pose[:3, 3]
        z = points[..., 2]
        at = (points @ K.T)[..., :2] / z[..., None]
        inside = (z > 0) & (anchors.depth[i] > 0)
        inside &= (at > 0.5).all(-1) & (at < [width - 0.5, height - 0.5]).all(-1)
        nearest = cast(K, pose, at[..., 0], at[..., 1])
        expected = inside & (z < 1.001 * nearest)
        # The image has no depth between its pixels: at the card's edges it may not know.
        assert not (seen[i] & ~expected).any()
        assert (seen[i] & expected).sum() > 0.8 * expected.sum() > 20
        np.testing.assert_allclose(uv[i][seen[i]], at[seen[i]], atol=2e-4)
        hidden += (inside & ~expected).sum()
    assert hidden > 10


def test_pairs_are_drawn_from_all_that_is_seen_without_repetition(views, dense):
    uv, seen = dense
    draw = jax.jit(exact_pairs, static_argnums=3)
    few = jax.device_get(draw(jax.random.key(0), *views, 64))
    assert (few.confidence == 1).all()
    column, row = np.moveaxis((few.anchor_uv - 0.5).astype(int), -1, 0)
    np.testing.assert_array_equal(few.wrist_uv, uv[few.view, row, column])
    assert seen[few.view, row, column].all()
    assert len({*zip(few.view, row, column, strict=True)}) == 64 and set(few.view) == {0, 1}
    other = jax.device_get(draw(jax.random.key(1), *views, 64))
    assert not np.array_equal(few.anchor_uv, other.anchor_uv)

    every = jax.device_get(draw(jax.random.key(0), *views, 2 * 24 * 32 + 10))
    assert every.confidence.sum() == seen.sum() and len(every.view) == 2 * 24 * 32 + 10


def test_nothing_in_common_gives_no_pairs(views):
    anchors, wrist = views
    dark = wrist._replace(depth=np.zeros_like(wrist.depth))
    draw = jax.jit(exact_pairs, static_argnums=3)
    pairs = jax.device_get(draw(jax.random.key(0), anchors, dark, 64))
    assert (pairs.confidence == 0).all() and np.isfinite(pairs.wrist_uv).all()


def test_tracks_count_where_both_ends_are_seen_and_sure():
    rng = np.random.default_rng(0)
    tracks = rng.uniform(0, 30, (2, 3, 5, 2)).astype(np.float32)
    visible, sure = rng.uniform(0, 1, (2, 2, 3, 5)).astype(np.float32)
    sure[0, 0, 0] = np.float32(0.2)  # not above the threshold
    pairs = pairs_from_tracks(tracks, visible, sure, np.float32(0.2))
    for b in range(2):
        for view in range(2):
            for i in range(5):
                slot = 5 * view + i
                ends = [(visible[b, j, i], sure[b, j, i]) for j in (0, view + 1)]
                good = all(v > 0.5 and c > np.float32(0.2) for v, c in ends)
                mean = np.mean([c for _, c in ends], dtype=np.float32)
                assert pairs.confidence[b, slot] == (mean if good else 0)
                assert pairs.view[b, slot] == view
                np.testing.assert_array_equal(
                    pairs.anchor_uv[b, slot], tracks[b, view + 1, i] + 0.5
                )
                np.testing.assert_array_equal(
                    pairs.wrist_uv[b, slot], tracks[b, 0, i] + 0.5
                )
