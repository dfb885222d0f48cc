"""VGGT: what its golden files cannot say, and that they would say if something were wrong.

Numbers are compared in parity/vggt.py. Here: symmetries, sizes, names, limits, meshes.
"""

import ast
import dataclasses
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from golden import close, jit
from runs import REPO
from scipy.ndimage import map_coordinates
from toy import devices

from w4d_jax.nets.ops import LayerNorm
from w4d_jax.nets.vggt import VGGT, VGGTConfig, aggregate, config, dense, track, update
from w4d_jax.nets.vggt.block import MLP, Attention
from w4d_jax.nets.vggt.correlate import correlations, halved, sample
from w4d_jax.nets.vggt.encoder import waves
from w4d_jax.nets.vggt.names import vggt
from w4d_jax.nets.weights import from_torch, to_torch
from w4d_jax.parity import golden
from w4d_jax.parity import vggt as parity
from w4d_jax.types import InputError

SHARED = Path(__file__).parents[2] / "shared"
FOLDER = SHARED / "golden" / "wristworld"
present = pytest.mark.skipif(not FOLDER.exists(), reason="golden files are not here")

POSE = config.PoseConfig(layers=1, heads=2, iterations=2)
SMALL = VGGTConfig(
    patch=4,
    positions=4,
    width=16,
    heads=2,
    layers=4,
    encoder_layers=1,
    encoder_heads=2,
    registers=2,
    taps=(0, 1, 2, 3),
    camera=POSE,
    depth=config.DenseConfig(8, (8, 8, 8, 8)),
    point=None,
    track=config.TrackConfig(config.DenseConfig(8, (8, 8, 8, 8)), 3, 1, 16, 1, 2, 4, 2),
    wrist=config.WristConfig(2, 2, 0.5, POSE),
)
SIZE = 16, 20


def draw(shapes, seed=0):
    """Numbers for every leaf, none of them small: a symmetry must not hold by neglect."""
    rng = np.random.default_rng(seed)

    def leaf(x):
        noise = rng.normal(size=x.shape).astype(np.float32)
        return noise / np.sqrt(np.prod(x.shape[:-1])) if x.ndim > 1 else 1 + 0.3 * noise

    return jax.tree.map(leaf, shapes)


@pytest.fixture(scope="module")
def net():
    """(apply, params, images f32[1,3,H,W,3], queries f32[1,5,2])."""
    rng = np.random.default_rng(1)
    images = rng.random((1, 3, *SIZE, 3), np.float32)
    queries = (rng.random((1, 5, 2)) * (SIZE[1], SIZE[0])).astype(np.float32)
    module = VGGT(SMALL)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images, queries)["params"]
    run = jit(lambda params, *inputs: module.apply({"params": params}, *inputs))
    return run, draw(shapes), images, queries


EIGHT = """
import dataclasses
import jax, numpy as np
from test_vggt import SMALL, VGGT, alike, draw
from w4d_jax.train import shard

shard.SMALL = 2  # cut whatever can be cut
images = np.random.default_rng(0).random((4, 2, 16, 20, 3), np.float32)
net = VGGT(dataclasses.replace(SMALL, registers=3, track=None))  # 48 tokens
params = draw(jax.eval_shape(net.init, jax.random.key(0), images))
run = jax.jit(net.apply)
alone = jax.device_get(run(params, images))
mesh = shard.make_mesh({"data": 1, "fsdp": 2, "seq": 2, "tensor": 2})
placed = jax.device_put(params, shard.shardings(mesh, params))
cut = {str(leaf.sharding.spec) for leaf in jax.tree.leaves(placed)}
assert any("tensor" in spec for spec in cut), cut
spread = jax.device_put(images, shard.batch_sharding(mesh, 4))
with jax.set_mesh(mesh):
    together = jax.device_get(run(placed, spread))
jax.tree.map(alike, together, alone)
"""


def alike(a, b):
    close(a, b, 1e-4 * float(np.abs(b).max()))


# ------ symmetries


def test_views_after_the_first_are_a_set(net):
    run, params, images, queries = net
    there, back = run(params, images, queries), run(params, images[:, [0, 2, 1]], queries)
    for ours, other, axis in (
        (there.pose, back.pose, 2),
        (there.depth, back.depth, 1),
        (there.tracks.xy, back.tracks.xy, 2),
        (there.tracks.visible, back.tracks.visible, 1),
    ):
        alike(other, np.take(ours, [0, 2, 1], axis))
    alike(back.wrist, there.wrist)
    other = run(params, images[:, [1, 0, 2]], queries)
    assert np.abs(np.take(other.pose, [1, 0, 2], 2) - there.pose).max() > 1e-2


def test_tracks_come_in_the_order_of_the_queries(net):
    run, params, images, queries = net
    order = [3, 1, 4, 0, 2]
    ours = run(params, images, queries).tracks.xy
    other = run(params, images, queries[:, order]).tracks.xy
    alike(other, ours[..., order, :])
    np.testing.assert_array_equal(ours[:, :, 0], np.stack([queries] * len(ours)))


def test_only_global_attention_mixes_views(net):
    _, params, images, _ = net
    see = jit(lambda p, x: aggregate.Aggregator(SMALL).apply({"params": p}, x))
    params = params["aggregator"]
    changed = images.copy()
    changed[:, 1] = 1 - changed[:, 1]
    mixed = [np.asarray(see(params, x)) for x in (images, changed)]
    assert np.abs(mixed[0] - mixed[1])[1:, :, [0, 2]].min((0, 1, 2, 3)).max() > 0
    still = params["blocks"]["global"] | {f"scale{i}": np.zeros((4, 16)) for i in (1, 2)}
    params = params | {"blocks": params["blocks"] | {"global": still}}
    apart = [np.asarray(see(params, x)) for x in (images, changed)]
    np.testing.assert_array_equal(*(x[:, :, [0, 2]] for x in apart))
    assert (apart[0] != apart[1])[:, :, 1].any()


def test_a_token_of_any_view_reaches_the_wrist(net):
    run, params, images, queries = net
    for view, row, column in itertools.product((0, 2), (0, SIZE[0] - 1), (0, SIZE[1] - 1)):
        other = images.copy()
        other[:, view, row, column] += 1
        moved = run(params, other, queries).wrist - run(params, images, queries).wrist
        assert np.abs(moved).max() > 1e-5


# ------ samples and resizes


def test_a_network_that_learns_from_nothing():
    """Convolutions before the patches, tokens in a row: colours laid over a whole image
    hardly count, every token reaches the wrist, and nothing else has such weights."""
    sizes = dataclasses.replace(
        SMALL,
        stem=(8, 8),
        depth=None,
        point=config.DenseConfig(8, (8, 8, 8, 8), fine=(8, 8)),
        track=None,
        wrist=config.WristConfig(0, pose=POSE, views=3),
    )
    images = np.random.default_rng(2).random((1, 3, 16, 16, 3), np.float32)
    network = VGGT(sizes)
    params = jax.jit(network.init)(jax.random.key(0), images)
    bound = network.bind(params)
    # A tint comes through at the image's edge alone, where a convolution looks beyond it.
    wide = np.random.default_rng(3).random((2, 64, 64, 3), np.float32)
    seen, other = bound.aggregator.encoder.stem(wide)[-1]
    assert seen.shape == (16, 16, 8)
    (tinted,) = bound.aggregator.encoder.stem(wide[:1] + np.float32([0.3, -0.2, 0.1]))[-1]
    inside = np.s_[2:, 2:]
    changed = np.abs(tinted - seen)[inside].mean()
    assert changed < 0.1 * np.abs(other - seen)[inside].mean()

    taps = bound.aggregate(images)
    # What tokens do not know of a pixel is said where it is.
    image = images.copy()
    image[0, 1, 12, 4] += 0.5
    moved = bound.describe(taps, image).points - bound.describe(taps, images).points
    near, far = np.abs(moved[0, 1, 10:15, 2:7]), np.abs(moved[0, 1, :6])
    assert near.mean() > 3 * far.mean() and not moved[0, ::2].any()

    slope = jax.grad(lambda x: bound.wrist(x).sum())(taps[-1])
    assert np.abs(slope).max(-1).min() > 0
    with pytest.raises(InputError, match=r"2 views of 4x4 patches: .* needs 3"):
        bound(images[:, :2])
    with pytest.raises(InputError, match=r"stem=\(8, 8\), wrist.views=3, .*: published"):
        vggt(sizes)


def test_positions_begin_as_waves():
    made = np.asarray(waves(None, (1 + 9, 8), np.float32))
    assert not made[0].any()
    grid = made[1:].reshape(3, 3, 8)
    for row in range(3):
        for column in range(3):
            rate = np.array([1, 0.1])
            phase = [f(x * rate) for x in (row, column) for f in (np.sin, np.cos)]
            np.testing.assert_allclose(grid[row, column], np.concatenate(phase), rtol=1e-6)


def test_windows_are_cut_from_the_whole_correlation():
    """Three levels; tracks inside, between cells, at the border, outside."""
    rng = np.random.default_rng(2)
    maps, features = (rng.normal(size=(1, 2, *n, 5)).astype("f4") for n in ((9, 12), (6,)))
    places = [[3, 4], [2.25, 5.5], [0, 0], [11, 8], [-1.5, 4], [13.2, 9.9]]
    at = np.stack([places, np.flip(places, 0)])[None]

    @jit
    def windows(maps, features, at):
        pyramid = halved(maps, 3)
        return pyramid, correlations(pyramid, features, at, 2)

    pyramid, ours = jax.device_get(windows(maps, features, at.astype("f4")))
    ours = ours.reshape(2, 6, 3, 5, 5)
    for view, point, level in itertools.product(range(2), range(6), range(3)):
        whole = np.float64(pyramid[level][0, view]) @ features[0, view, point]
        x, y = at[0, view, point] / 2**level
        dx, dy = np.mgrid[-2:3, -2:3]  # x moves slowly
        theirs = map_coordinates(
            np.pad(whole, 1), [y + dy + 1, x + dx + 1], order=1, mode="constant"
        )
        close(ours[view, point, level], theirs / np.sqrt(5), 1e-5)


def test_a_map_of_one_row_is_the_same_everywhere():
    maps = np.ones((1, 1, 1, 4, 2), np.float32)
    at = np.array([[[[1.0, 7.5]]]], np.float32)
    f = jit(lambda *a: correlations([a[0]], *a[1:], 1))
    ours = f(maps, np.ones((1, 1, 1, 2), np.float32), at)
    close(ours, np.full((1, 1, 1, 9), np.sqrt(2)), 1e-6)


def test_features_are_sampled_between_cells_and_clamped():
    rng = np.random.default_rng(3)
    maps = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
    at = (rng.random((2, 40, 2)) * 12 - 3).astype(np.float32)
    ours = jit(sample)(maps, at)
    for b, c in itertools.product(range(2), range(3)):
        where = at[b, :, ::-1].T.clip(0, [[4], [6]])
        close(ours[b, :, c], map_coordinates(maps[b, ..., c], where, order=1), 1e-5)


@pytest.mark.parametrize("size", [(5, 7), (10, 3), (1, 4)])
def test_resize_keeps_corners(size):
    x = np.random.default_rng(4).normal(size=(1, 5, 3, 2)).astype(np.float32)

    def along(a, axis, n):
        at = np.linspace(0, a.shape[axis] - 1, n)
        line = np.arange(a.shape[axis])
        return np.apply_along_axis(lambda y: np.interp(at, line, y), axis, a)

    close(dense.resize(x, size), along(along(x, 1, size[0]), 2, size[1]), 1e-6)
    close(dense.resize(x[:, :1], (4, 3)), np.repeat(x[:, :1], 4, 1), 1e-6)


# ------ sizes and names


@pytest.fixture(scope="module")
def published():
    """Shapes of WristWorld's own model, which holds VGGT-1B."""
    inputs = jnp.zeros((1, 1, 140, 140, 3)), jnp.zeros((1, 1, 2))
    return jax.eval_shape(VGGT(VGGTConfig()).init, jax.random.key(0), *inputs)["params"]


def test_the_published_model_has_its_size(published):
    sizes = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in published.items()}
    assert sizes == {
        "aggregator": 909_112_320,
        "camera": 216_174_610,
        "point": 32_654_628,
        "depth": 32_654_562,
        "track": 65_941_396,
        "wrist": 367_251_474,
    }
    assert sum(sizes.values()) == 1_623_788_990


def test_names_are_total(published):
    table = vggt(VGGTConfig())
    names = [name for row in table for name in row.names()]
    assert len(names) == len(set(names)) == 1903
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(published)
    }
    assert {row.ours for row in table} == leaves
    without = vggt(VGGTConfig(**config.vggt_1b()))
    assert {n for r in without for n in r.names()} == {
        n for n in names if not n.startswith("wrist_head.")
    }


@pytest.mark.skipif(not SHARED.exists(), reason="the specification is not here")
def test_names_and_shapes_are_those_of_the_checkpoint(published):
    text = (SHARED / "specs" / "wristworld.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| ([(][^|]*) \| (\d+) \|$", text, re.MULTILINE)
    wanted = {}
    for name, shapes, count in rows:
        shapes = [ast.literal_eval(s) for s in re.findall(r"\(.*?\)", shapes)]
        shapes = [s if isinstance(s, tuple) else (s,) for s in shapes]
        choices = [part.split(",") for part in re.findall(r"{([^}]*,[^}]*)}", name)]
        paired = len(shapes) > 1  # the last braces name one tensor for each shape
        form = re.sub(r"{[^}]*,[^}]*}", "<>", name)
        found = []
        for combination in itertools.product(*choices):
            made = form
            for word in combination:
                made = made.replace("<>", word, 1)
            shape = shapes[choices[-1].index(combination[-1])] if paired else shapes[0]
            found.append((made, shape))
        entries = int(count) * len(shapes)
        layers = entries // len(found) if "{i}" in form else 1
        for made, shape in found:
            wanted |= {made.replace("{i}", str(i)): shape for i in range(layers)}
    flat = jax.tree_util.tree_leaves_with_path(published)
    leaves = {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in flat}
    ours = {}
    for row in vggt(VGGTConfig()):
        shape = leaves[row.ours].shape[1 if row.layers else 0 :]
        there = row.layout.to_theirs(np.broadcast_to(np.float32(0), shape)).shape
        ours |= dict.fromkeys(row.names(), there)
    assert ours == wanted


@pytest.fixture(scope="module")
def file():
    return golden.load(FOLDER, "vggt")


@present
def test_weights_come_back_bit_for_bit(file):
    _, entry, weights = file
    table = vggt(parity.model_config(entry))
    back = to_torch(table, from_torch(table, weights))
    assert back.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


# ------ golden files see what is wrong


def tanh(x, approximate):
    return jax.nn.gelu(x, approximate=True)


def aliased(x, shape, method, antialias, resize=jax.image.resize):
    return resize(x, shape, method, antialias=False)


def exchanged(*arguments, rope=aggregate.rope):
    phases = rope(*arguments)
    return np.roll(phases, phases.shape[-1] // 2, -1)


def centred(x, size):
    return jax.image.resize(x, (len(x), *size, x.shape[-1]), "linear")


def transposed(pyramid, features, at, radius, correlations=correlations):
    side = 2 * radius + 1
    x = correlations(pyramid, features, at, radius)
    return x.reshape(*x.shape[:-1], -1, side, side).swapaxes(-1, -2).reshape(x.shape)


class Unit(nn.Module):
    """With x beside the convolutions, and not its ReLU."""

    @nn.compact
    def __call__(self, x):
        h = nn.relu(dense.conv3(x.shape[-1], "conv1")(nn.relu(x)))
        return x + dense.conv3(x.shape[-1], "conv2")(h)


class Look(nn.Module):
    """What is looked up is added to x, and not to its norm."""

    config: config.BlockConfig

    @nn.compact
    def __call__(self, x, context=None):
        h = LayerNorm(1e-5, name="norm1")(x)
        if context is not None:
            context = LayerNorm(1e-5, name="norm_context")(context)
        x = x + Attention(self.config, name="attention")(h, context=context)
        h = LayerNorm(1e-5, name="norm2")(x)
        return x + MLP(4 * x.shape[-1], x.shape[-1], name="mlp")(h)


coarse = property(lambda self: dataclasses.replace(self.block, qk_norm=False))  # 1e-5


def failures(part: str, file) -> set[str]:
    """Of one part of the checks, each given the reference's own numbers to go on from."""
    z, entry, weights = file
    model = parity.Model(entry, weights)
    taps = np.stack([z[f"agg_{i}"] for i in entry["model"]["taps"]])
    checks = {
        "encoder": lambda: parity.encoder(model, z),
        "tokens": lambda: parity.tokens(z, model.aggregate(model.params, parity.images(z))),
        "dense": lambda: parity.dense(model, z, taps),
        "tracks": lambda: parity.tracks(model, z, taps),
        "single view": lambda: [next(parity.other_sizes(model, z))],
        "small": lambda: [next(parity.small(model, z, weights, entry["small_scale"]))],
    }
    return {check.name for check in checks[part]() if not check.passed}


@present
@pytest.mark.parametrize(
    ("part", "place", "name", "mistake", "caught"),
    [
        ("encoder", nn, "gelu", tanh, "dino_patch_tokens"),
        ("single view", jax.image, "resize", aliased, "single_view/dino_patch_tokens"),
        ("tokens", aggregate, "rope", exchanged, "agg_0"),
        ("dense", dense, "resize", centred, "depth"),
        ("dense", dense, "Unit", Unit, "world_points"),
        ("tracks", track, "correlations", transposed, "track_corr_0"),
        ("tracks", update, "Look", Look, "track_delta_0"),
        ("small", VGGTConfig, "encoder_block", coarse, "small_scale/dino_patch_tokens"),
    ],
    ids=lambda x: x.__name__ if callable(x) else None,
)  # fmt: skip
def test_a_planted_mistake_is_found(part, place, name, mistake, caught, file, monkeypatch):
    monkeypatch.setattr(place, name, mistake)
    assert caught in failures(part, file)


@present
def test_a_weight_in_the_wrong_place_is_found(file):
    """Slots of the first view and of the others; norms of queries and of keys; q and k."""
    z, entry, weights = file
    model = parity.Model(entry, weights)
    block = "aggregator.frame_blocks.0.attn"

    def found(weights):
        taps = model.aggregate(from_torch(model.table, weights), parity.images(z))
        return [check for check in parity.tokens(z, taps) if not check.passed]

    assert not found(weights)
    swapped = {
        f"{block}.q_norm.weight": weights[f"{block}.k_norm.weight"],
        f"{block}.k_norm.weight": weights[f"{block}.q_norm.weight"],
    }
    qkv = weights[f"{block}.qkv.weight"]
    third = len(qkv) // 3
    for wrong in (
        {"aggregator.camera_token": weights["aggregator.camera_token"][:, ::-1]},
        {"aggregator.register_token": weights["aggregator.register_token"][:, ::-1]},
        swapped,
        {f"{block}.qkv.weight": np.roll(qkv, third, 0)},
    ):
        assert found(weights | wrong)


# ------ limits


def test_sizes_that_do_not_fit_are_refused_in_one_line(net):
    _, params, images, queries = net
    see = VGGT(SMALL)

    def call(images, queries=None, net=see):
        return jax.eval_shape(lambda p: net.apply({"params": p}, images, queries), params)

    for broken, words in (
        (lambda: call(images[:, :, :15]), r"height=15: need .* patch=4 \(try 16\)"),
        (lambda: call(images[:, :, :, :2]), r"width=2: need .* \(try 4\)"),
        (lambda: call(images[0]), r"images of shape \(3, 16, 20, 3\)"),
        (lambda: call(images[:, :, :4], queries), "feature maps of 2 x 10 cells, need 4"),
        (lambda: call(images, queries, VGGT(dataclasses.replace(SMALL, track=None))),
         "no track head"),
        (lambda: dataclasses.replace(SMALL, width=20), "width=20: need a multiple of"),
        (lambda: dataclasses.replace(SMALL, taps=(0, 1, 2, 2)), "four rising layers"),
        (lambda: dataclasses.replace(SMALL, layers=6), "the last 5"),
        (lambda: dataclasses.replace(SMALL, remat="some"), "remat='some'"),
        (lambda: config.WristConfig(layers=1), "wrist.layers=1"),
        (lambda: config.WristConfig(views=2), "wrist.layers=3, wrist.views=2"),
        (
            lambda: dataclasses.replace(SMALL, point=config.DenseConfig(fine=(8,) * 4)),
            r"patch=4: maps of fine=.* are \[0.25, 0.5, 1.0, 2.0\] times",
        ),
        (lambda: dataclasses.replace(SMALL, stem=(8, 8, 8)), "patch=4: need a mult.* of 8"),
        (lambda: config.DenseConfig(features=12), "features=12"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words) as caught:
            broken()
        assert "\n" not in str(caught.value)


def test_dropout_acts_with_a_key_alone(net):
    _, params, images, _ = net
    module = VGGT(dataclasses.replace(SMALL, camera=None, depth=None, track=None))

    @jit
    def wrist(params, images, rngs):
        return module.apply({"params": params}, images, rngs=rngs).wrist

    still, again = (wrist(params, images, {}) for _ in range(2))
    np.testing.assert_array_equal(still, again)
    keys = [{"dropout": jax.random.key(i)} for i in (0, 0, 1)]
    one, same, other = (wrist(params, images, key) for key in keys)
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3 and np.abs(one - still).max() > 1e-3


def test_a_mesh_of_eight_gives_what_one_device_gives():
    """Examples, parameters, tokens and heads are all cut."""
    places = devices(8) | {"PYTHONPATH": f"{REPO}:{REPO / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-c", EIGHT],
        env=os.environ | places,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_the_backward_pass_keeps_changes_nothing(net):
    _, params, images, _ = net

    def slope(remat):
        module = aggregate.Aggregator(dataclasses.replace(SMALL, remat=remat))
        loss = lambda p: jnp.square(module.apply({"params": p}, images)).mean()  # noqa: E731
        return jit(jax.grad(loss))(params["aggregator"])

    for a, b in zip(*map(jax.tree.leaves, (slope("none"), slope("full"))), strict=True):
        alike(b, a)
