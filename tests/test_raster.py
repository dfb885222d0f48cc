"""The raster against closed forms, and against every ray on every triangle in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from w4d_jax.kin import raster
from w4d_jax.kin.raster import rasterize

H, W, N = 96, 128, 5120
K = np.array([[110.0, 1.5, 61.3], [0.0, 105.0, 50.2], [0.0, 0.0, 1.0]], np.float32)
NEAR = 0.01
# To the last bit it matters how it is compiled: here as users do, not as conftest.py says.
DEFAULT = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}
compiled = jax.jit(rasterize, static_argnums=(2, 3, 4), compiler_options=DEFAULT)
running_sum = jax.jit(raster._running_sum, static_argnums=1)


def draw(corners, K=K):
    """Depth and triangle of at most N triangles, padded to N: one program serves all."""
    corners = np.asarray(corners, np.float32)
    padded = np.concatenate([corners, np.zeros((N - len(corners), 3, 3), np.float32)])
    return tuple(np.asarray(x) for x in compiled(padded, K, H, W, NEAR))


def rays():
    u, v = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    pixels = np.stack([u, v, np.ones_like(u)], -1)
    return pixels @ np.linalg.inv(K.astype(np.float64)).T  # z = 1


def brute_force(corners):
    """Depth f64[H,W] (0 = nothing), and which pixels are closer than 1e-3 to a decision."""
    depth = np.full((H, W), np.inf)
    unsure = np.zeros((H, W), bool)
    r = rays()
    for a, b, c in np.asarray(corners, np.float64):
        volumes = np.stack([r @ np.cross(q, p) for p, q in ((b, c), (c, a), (a, b))])
        # How fast each changes from pixel to pixel: its distance from 0, in pixels.
        slopes = [np.cross(q, p) for p, q in ((b, c), (c, a), (a, b))]
        slopes = [np.hypot(s[0] / K[0, 0], s[1] / K[1, 1]) + 1e-30 for s in slopes]
        distance = np.min([v / s for v, s in zip(volumes, slopes, strict=True)], 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = a @ np.cross(c - a, b - a) / (r @ np.cross(c - a, b - a))
        in_front = (z >= NEAR) & (distance >= 0)
        depth = np.where(in_front & (z < depth), z, depth)
        unsure |= (np.abs(distance) < 1e-3) & (z > 0)
        unsure |= (distance > -1e-3) & (np.abs(z - NEAR) < 1e-5)
    return np.where(np.isfinite(depth), depth, 0.0), unsure


def random_triangles(seed: int, count: int, size: float):
    """Corners before, beside and behind the camera, facing anywhere."""
    rng = np.random.default_rng(seed)
    center = rng.normal(size=(count, 1, 3)) * [1.0, 1.0, 1.5] + [0.0, 0.0, 1.0]
    return (center + size * rng.normal(size=(count, 3, 3))).astype(np.float32)


@pytest.mark.parametrize("size", [0.02, 0.2, 2.0])
def test_random_triangles_match_every_ray_on_every_triangle(size):
    corners = random_triangles(0, 200, size)
    depth, triangle = draw(corners)
    true, unsure = brute_force(corners)
    sure = ~unsure
    assert sure.mean() > 0.9 and (true > 0).any()
    np.testing.assert_array_equal((depth > 0)[sure], (true > 0)[sure])
    np.testing.assert_array_equal(triangle >= 0, depth > 0)
    both = sure & (true > 0)
    error = np.abs(depth - true)[both] / true[both]
    # Edge-on faces magnify rounding; they are few.
    assert np.quantile(error, 0.99) < 1e-5 and error.max() < 1e-3


def sphere(subdivisions: int, radius: float, center):
    return trimesh.creation.icosphere(subdivisions, radius).triangles + center


def test_sphere_converges_to_the_closed_form():
    center, radius = np.array([0.05, -0.03, 0.9]), 0.25
    r = rays()
    along, square = r @ center, (r * r).sum(-1)
    inside = along**2 - square * (center @ center - radius**2)
    true = np.where(inside > 0, (along - np.sqrt(np.maximum(inside, 0))) / square, 0)
    errors = []
    for subdivisions in (2, 3, 4):
        depth, _ = draw(sphere(subdivisions, radius, center))
        core = inside > 0.3 * inside.max()  # away from the silhouette
        assert (depth[core] > 0).all() and not (depth[true == 0] > 0).any()
        errors.append(np.mean((depth - true)[core]))
    assert errors[0] > 0 and errors[1] < errors[0] / 3.5 and errors[2] < errors[1] / 3.5
    assert errors[2] < 3e-4


def room(size: float):
    """A cube seen from inside: its faces turned inwards."""
    return trimesh.creation.box([size] * 3).triangles[:, ::-1]


def test_from_inside_a_room_every_pixel_is_exact():
    turn = trimesh.transformations.euler_matrix(0.4, 1.1, -0.7)[:3, :3]
    eye = np.array([0.3, -0.2, 0.4])  # in the room
    corners = (room(2.0) - eye) @ turn  # camera axes are the columns of `turn`
    depth, triangle = draw(corners)
    direction = rays() @ turn.T
    true = np.min((np.sign(direction) - eye) / direction, -1)
    assert (triangle >= 0).all()
    np.testing.assert_allclose(depth, true, rtol=1e-5)


def test_back_faces_are_not_drawn():
    depth, triangle = draw(room(2.0)[:, ::-1])
    assert (depth == 0).all() and (triangle == -1).all()


def test_floor_through_the_near_plane_and_behind():
    height, far = 0.02, 20.0
    a, b, c, d = np.array([[-far, -far], [far, -far], [far, far], [-far, far]])
    floor = [[(x, height, z) for x, z in corners] for corners in ((a, b, c), (a, c, d))]
    depth, _ = draw(floor)
    with np.errstate(divide="ignore"):
        true = height / rays()[..., 1]
    true = np.where((true >= NEAR) & (true < far), true, 0)
    near_edge = (np.abs(true - NEAR) < 1e-5) | (true > 0.9 * far)
    np.testing.assert_array_equal((depth > 0)[~near_edge], (true > 0)[~near_edge])
    # Rounding is that of the farthest corner: float32 holds 20 m to 2e-6 m.
    np.testing.assert_allclose(depth[~near_edge], true[~near_edge], rtol=1e-5, atol=4e-6)


def test_the_near_plane_cuts_exactly():
    """A wall slanting towards the camera is seen where z >= near and nowhere else."""
    corners = [[(-1.0, -9.0, -0.99), (1.0, -9.0, 1.01), (1.0, 9.0, 1.01)]]
    corners += [[(-1.0, -9.0, -0.99), (1.0, 9.0, 1.01), (-1.0, 9.0, -0.99)]]
    depth, _ = draw(np.array(corners)[:, ::-1])
    x = rays()[..., 0]
    true = 0.01 / (1 - x)  # z = x + 0.01 meets x = z u
    seen = (true >= NEAR) & (true < 1.0) & (x < 1)
    clear = np.abs(x) > 1e-4
    np.testing.assert_array_equal((depth > 0)[clear], seen[clear])


def test_shared_edges_through_pixel_centres_leave_no_holes():
    rows, columns = np.mgrid[0:H:4, 0:W:4] + 0.5  # vertices lie on pixel centres
    z = 1.0 + 0.1 * np.sin(rows + columns)
    back = np.linalg.inv(K.astype(np.float64))
    points = np.stack([columns, rows, np.ones_like(rows)], -1) @ back.T * z[..., None]
    p, q, r, s = points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]
    cells = np.stack([np.stack([p, s, r], -2), np.stack([p, r, q], -2)])
    depth, _ = draw(cells.reshape(-1, 3, 3))
    inside = np.s_[1 : rows[-1, 0].astype(int), 1 : columns[0, -1].astype(int)]
    assert (depth[inside] > 0).all()


def test_any_overdraw_in_any_order():
    """Forty walls over the whole image: many chunks, of which the nearest wall is left."""
    wall = np.array([[-9.0, -9, 1], [0, 27.0, 1], [9.0, -9, 1]])
    corners = (
        wall * np.linspace(1, 3, 40)[np.random.default_rng(0).permutation(40), None, None]
    )
    depth, triangle = draw(corners)
    assert (triangle == np.argmin(corners[:, 0, 2])).all()
    np.testing.assert_allclose(depth, 1.0, rtol=1e-6)
    again, _ = draw(corners[::-1])
    np.testing.assert_array_equal(depth, again)


def test_equal_depths_go_to_the_highest_index():
    wall = np.array([[-9.0, -9, 1], [0, 27.0, 1], [9.0, -9, 1]])
    _, triangle = draw(np.stack([wall] * 3))
    assert (triangle == 2).all()


def test_gradients_move_the_seen_plane():
    """d depth / d (corners, K) against central differences of rays on planes in float64."""
    corners = np.zeros((N, 3, 3), np.float32)
    corners[:320] = sphere(2, 0.3, [0.0, 0.0, 1.0])
    rng = np.random.default_rng(3)
    dc = rng.normal(size=(N, 3, 3))
    dK = np.array([[3.0, 0.5, 2.0], [0.0, -2.0, 1.0], [0.0, 0.0, 0.0]])
    weight = rng.normal(size=(H, W)).astype(np.float32)

    def depth(corners, K):
        return rasterize(corners, K, H, W, NEAR)[0]

    @jax.jit
    def slopes(corners, K):
        _, triangle = rasterize(corners, K, H, W, NEAR)
        _, forwards = jax.jvp(depth, (corners, K), (np.float32(dc), np.float32(dK)))
        back = jax.grad(lambda *x: jnp.sum(weight * depth(*x)), (0, 1))
        return triangle, forwards, back(corners, K)

    triangle, forwards, (gc, gK) = jax.device_get(slopes(corners, K))
    seen = triangle[triangle >= 0]

    def plane_depth(step):
        c = (corners + step * dc)[seen]
        back = np.linalg.inv(K.astype(np.float64) + step * dK)
        u, v = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
        r = (np.stack([u, v, np.ones_like(u)], -1) @ back.T)[triangle >= 0]
        n = np.cross(c[..., 1, :] - c[..., 0, :], c[..., 2, :] - c[..., 0, :])
        return (n * c[..., 0, :]).sum(-1) / (n * r).sum(-1)

    true = (plane_depth(1e-6) - plane_depth(-1e-6)) / 2e-6
    error = np.abs(forwards[triangle >= 0] - true) / (1 + np.abs(true))
    assert len(seen) > 1000 and error.max() < 1e-3
    assert (forwards[triangle < 0] == 0).all()

    backwards = np.sum(gc * dc) + np.sum(gK * dK)
    np.testing.assert_allclose(backwards, np.sum(weight * forwards), rtol=1e-3)


@pytest.mark.parametrize("size", [1, 4097])
def test_running_sum_saturates_exactly(size):
    values = np.random.default_rng(size).integers(0, 9, size).astype(np.int32)
    values[size // 2] = 2**28
    for limit in (7, 32768, 262144):
        expected = np.minimum(np.cumsum(values.astype(np.int64)), limit)
        np.testing.assert_array_equal(running_sum(values, limit), expected)
