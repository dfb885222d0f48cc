"""Spatial projection consistency: against a loop over pairs, at its edges, and at work."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.transform import Rotation

from w4d_jax.kin.match import Pairs
from w4d_jax.kin.pose import decode_pose
from w4d_jax.train import spc

B, V, H, W, P = 2, 2, 6, 8, 40
SIZE = 48, 64
K = np.array([[60, 2, 31], [0, 50, 25], [0, 0, 1]], np.float32)


@pytest.fixture(scope="module")
def case():
    """Rough pointmaps, poses that leave part of the points behind, pairs in all places."""
    rng = np.random.default_rng(0)
    encoding = rng.normal(0, 0.3, (B, 9)).astype(np.float32) + np.eye(9)[6]
    points = rng.normal([0, 0, 0.7], 1, (B, V, H, W, 3))
    uv = rng.uniform(-1, 1.2, (B, P, 2)) * [W, H]
    uv[:, :8] = np.round(uv[:, :8] * 2) / 2  # on pixel centres and edges
    pairs = Pairs(
        uv,
        rng.uniform(-5, 70, (B, P, 2)),
        rng.integers(0, V, (B, P)),
        rng.uniform(0, 1, (B, P)),
    )
    return jax.tree.map(
        lambda x: x.astype(np.float32 if x.dtype.kind == "f" else np.int32),
        (encoding, points, pairs),
    )


def loop(encoding, points, pairs, near, paper, beyond):
    """The loss from its formulas: float64, one pair after the other."""
    front, behind = [], []
    for b in range(B):
        R = Rotation.from_quat(encoding[b, 3:7].astype(np.float64)).as_matrix()
        for j in range(P):
            x, y = pairs.anchor_uv[b, j].astype(np.float64) - 0.5
            outside = x > W - 1 or y > H - 1
            if pairs.confidence[b, j] <= 0.2 or min(x, y) < 0 or (outside and not beyond):
                continue
            x, y = min(x, W - 1), min(y, H - 1)
            X = 0.0
            for row in {int(np.floor(y)), int(np.ceil(y))}:
                for column in {int(np.floor(x)), int(np.ceil(x))}:
                    share = (1 - abs(x - column)) * (1 - abs(y - row))
                    X += share * points[b, pairs.view[b, j], row, column].astype(float)
            X = R @ X + encoding[b, :3]
            if X[2] > near:
                u, v = (K.astype(np.float64) @ X)[:2] / X[2]
                square = np.square([u, v] - pairs.wrist_uv[b, j]).mean()
                front.append(30 * square / (SIZE[0] ** 2 + SIZE[1] ** 2))
            else:
                behind.append(near - X[2])
    if paper:
        return np.mean(front) + np.mean(behind)
    return np.mean(front + behind)


@partial(jax.jit, static_argnums=(3, 4, 5))
@partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
def ours(encoding, points, pairs, near, form, rule):
    pose, _ = decode_pose(encoding, *SIZE)
    valid = rule(pairs, *points.shape[2:4], 0.2)
    c = spc.consistency(
        points, pose, jnp.broadcast_to(K, (len(pose), 3, 3)), pairs, valid, SIZE, near
    )
    return form(c), c.counts()


FORMS = [
    (0.01, spc.paper_loss, spc.sure_inside),
    (0.0, spc.released_loss, spc.sure_not_negative),
]


@pytest.mark.parametrize("form", FORMS, ids=["paper", "released"])
def test_value_and_gradient_are_those_of_a_loop(case, form):
    encoding, points, pairs = case
    near, loss, rule = form

    def expected(encoding, points):
        paper, beyond = loss is spc.paper_loss, rule is spc.sure_not_negative
        return loop(encoding, points, pairs, near, paper, beyond)

    (value, counts), (by_pose, by_points) = ours(encoding, points, pairs, *form)
    assert value == pytest.approx(expected(encoding, points), rel=1e-5)
    assert 0 < counts["spc_behind"] < counts["spc_pairs"] < B * P

    rng = np.random.default_rng(1)
    turn, shift = rng.normal(size=encoding.shape), rng.normal(size=points.shape)
    turn[:, 7:] = 0

    def along(step):
        return expected(encoding + step * turn, points + step * shift)

    slope = (along(1e-6) - along(-1e-6)) / 2e-6
    got = (by_pose * turn).sum() + (by_points * shift).sum()
    assert got == pytest.approx(slope, rel=1e-3)
    assert (by_pose[:, 7:] == 0).all()  # K is known: the fields of view are not judged


@pytest.mark.parametrize("form", FORMS, ids=["paper", "released"])
def test_without_valid_pairs_value_gradient_and_count_are_0(case, form):
    encoding, points, pairs = case
    none = pairs._replace(confidence=np.zeros((B, P), np.float32))
    (value, counts), gradients = ours(encoding, points, none, *form)
    assert value == 0 and counts == {"spc_pairs": 0, "spc_behind": 0}
    assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("form", FORMS, ids=["paper", "released"])
def test_points_on_the_camera_plane_and_next_to_it_have_finite_gradients(form):
    """R = 1, t = 0; a row of points at these depths, matched one at a time."""
    z = np.float32(
        [0, -0.0, 1e-6, -1e-6, np.nextafter(0.01, 0), 0.01, np.nextafter(0.01, 1)]
    )
    points = np.full((B, V, H, W, 3), 0.1, np.float32)
    points[0, 0, 0, : len(z), 2] = z
    uv = np.full((B, P, 2), 0.5, np.float32)
    uv[0, : len(z), 0] += np.arange(len(z))
    encoding = np.tile(np.eye(9, dtype=np.float32)[6], (B, 1))
    near = np.float32(form[0])
    for keep in range(len(z)):
        sure = np.zeros((B, P), np.float32)
        sure[0, keep] = 1
        pairs = Pairs(uv, uv, np.zeros((B, P), np.int32), sure)
        (value, _), (by_pose, by_points) = ours(encoding, points, pairs, *form)
        assert np.isfinite([value, *by_pose.ravel(), *by_points.ravel()]).all()
        if z[keep] <= near:
            slope = -1.0 if z[keep] < near else 0.0
            assert value == near - z[keep] and by_points[0, 0, 0, keep, 2] == slope


@pytest.mark.parametrize("stands_back", [True, False])
def test_whether_a_camera_off_to_the_side_gains_by_standing_back(stands_back):
    """Two cameras, as far off to the left as to the right; by hand, per unit of going back
    from points at depth z: -2 f^2 s^2 / z^3 for pixels, 0 for distances from their rays."""
    rng = np.random.default_rng(4)
    off, f, z = 0.1, 50.0, 0.8
    points = np.full((B, 1, H, W, 3), z, np.float32)
    points[..., :2] = rng.uniform(-0.3, 0.3, (H, W, 2))
    u, v = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    anchor = np.tile(np.stack([u, v], -1).reshape(-1, 2).astype("f4"), (B, 1, 1))
    camera = np.diag([f, f, 1]).astype("f4")
    wrist = f * points[..., :2].reshape(B, -1, 2) / z
    pairs = Pairs(anchor, wrist, np.zeros((B, H * W), int), np.ones((B, H * W), "f4"))
    valid = np.ones((B, H * W), bool)

    @jax.jit
    @jax.value_and_grad
    def loss(back):
        pose = jnp.tile(jnp.eye(4), (B, 1, 1)).at[:, 0, 3].set(jnp.array([off, -off]))
        pose = pose.at[:, 2, 3].set(back)
        K = jnp.tile(camera, (B, 1, 1))
        c = spc.consistency(points, pose, K, pairs, valid, SIZE, 0.01, stands_back)
        return spc.paper_loss(c)

    value, slope = loss(0.0)
    pixels = spc.gain(*SIZE) * (f * off / z) ** 2 / 2
    assert value == pytest.approx(pixels, rel=1e-5)
    assert slope == pytest.approx(-2 * pixels / z if stands_back else 0, rel=1e-5, abs=1e-5)


def test_it_recovers_wrist_poses_from_starts_behind_the_scene_and_turned_away():
    rng = np.random.default_rng(2)
    R = Rotation.from_rotvec([0.3, -0.5, 0.2])
    t = np.array([0.1, -0.2, 0.4])
    seen = rng.uniform([-0.5, -0.4, 0.6], [0.5, 0.4, 1.4], (B, H * W, 3))
    points = R.inv().apply((seen - t).reshape(-1, 3)).reshape(B, 1, H, W, 3)
    u, v = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    anchor = np.tile(np.stack([u, v], -1).reshape(-1, 2), (B, 1, 1))
    wrist = (seen @ K.T)[..., :2] / seen[..., 2:]
    pairs = Pairs(anchor, wrist, np.zeros((B, H * W), int), np.ones((B, H * W)))
    points, pairs = jax.tree.map(jnp.asarray, (points, pairs))
    starts = jnp.array([[0, 0, -2.5, 0, 0, 0, 1, 1, 1], [0, 0, 0.3, 0, 1, 0, 0.2, 1, 1]])
    rate = optax.cosine_decay_schedule(0.03, 300)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    @jax.jit
    def fit(encoding):
        def step(state, _):
            encoding, memory = state
            (_, counts), (slope, _) = ours(encoding, points, pairs, *FORMS[0])
            change, memory = optimizer.update(slope, memory)
            return (optax.apply_updates(encoding, change), memory), counts["spc_behind"]

        state = encoding, optimizer.init(encoding)
        return jax.lax.scan(step, state, length=300)

    (found, _), behind = fit(starts)
    assert H * W < behind[0] < 2 * H * W and behind[-1] == 0
    for encoding in np.asarray(found):
        np.testing.assert_allclose(encoding[:3], t, atol=2e-3)
        assert (Rotation.from_quat(encoding[3:7]) * R.inv()).magnitude() < 2e-3
