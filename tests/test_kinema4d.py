"""Kinema4D: what the robot may change, sizes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import jit

from w4d_jax.nets import dit, wan_names
from w4d_jax.nets.kinema4d import Kinema4D, Kinema4DConfig, kinema4d_14b
from w4d_jax.types import InputError


@pytest.fixture(scope="module")
def tiny():
    """A pm model without image tokens, its inputs and its fresh parameters."""
    config = small(variant="pm")
    x = draw((2, 3, 4, 16, 5)), draw((2, 3, 4, 16, 9), 1), draw((2, 3, 4, 8, 9), 2)
    time = np.array([10, 900], np.float32)
    params = jit(Kinema4D(config).init)(jax.random.key(0), *x, time)
    return Kinema4D(config), params, (*x, time)


def small(variant="pm", modalities=2, **kwargs):
    size = {"width": 24, "heads": 2, "layers": 2, "ffn": 24, "frequencies": 8}
    return Kinema4DConfig(
        dit=dit.DiTConfig(in_channels=14, out_channels=5, **size),
        variant=variant, modalities=modalities,
        robot_width=6, robot_patch=4, robot_grid=(3, 1, 2), **kwargs,
    )  # fmt: skip


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_fresh_model_is_the_pretrained_one_plus_the_mask(tiny):
    """Zero-initialised projections: at first the robot acts by its mask alone."""
    net, params, (noisy, condition, robot, time) = tiny
    params = jax.tree.map(lambda a: a + 0, params)
    params["params"]["dit"]["head"]["out"]["kernel"] = draw((24, 20))
    forward = jit(net.apply)
    before = forward(params, noisy, condition, robot, time)
    other = robot.copy()
    other[..., 4:] = draw(other[..., 4:].shape, 9)
    np.testing.assert_array_equal(forward(params, noisy, condition, other, time), before)
    other[..., :4] += 1
    assert np.abs(forward(params, noisy, condition, other, time) - before).max() > 1e-3


@pytest.mark.parametrize("crossed", [False, True])
def test_a_change_is_seen_and_a_choice_hangs_on_the_hand_alone(crossed):
    size = {"width": 24, "heads": 2, "layers": 1, "ffn": 24, "frequencies": 8}
    channels = 4 + 5 * (1 + 2 * (1 + crossed))
    network = dit.DiTConfig(in_channels=channels, out_channels=5, image_dim=7, **size)
    robot = {"robot_width": 6, "robot_patch": 4, "robot_grid": (3, 1, 2)}
    net = Kinema4D(Kinema4DConfig(network, "act", crossed, outcomes=True, **robot))
    time, hand = np.float32([500]), draw((1, 1, 7), 3)
    x = draw((1, 3, 4, 16, 5)), draw((1, 3, 4, 16, 14), 1), draw((1, 3, 4, 16, 9), 2)
    params = jit(net.init)(jax.random.key(0), *x, time, hand)
    params["params"]["dit"]["head"]["out"]["kernel"] = draw((24, 20))
    made = jit(net.apply)(params, *x, time, hand)
    assert made.shape == (1, 3, 4, 16, 5)
    x[1][..., 9:] += 1
    assert np.abs(jit(net.apply)(params, *x, time, hand) - made).max() > 1e-3
    hands = draw((6, 1, 7), 4)
    left = jit(partial(net.apply, method="choose"))(params, hands)
    assert left.shape == (6,) and (left > 0).all() and (left < 1).all()
    assert np.ptp(left) > 1e-3
    params["params"] |= jax.tree.map(
        jnp.zeros_like, {k: x for k, x in params["params"].items() if k != "choice"}
    )
    np.testing.assert_array_equal(
        jit(partial(net.apply, method="choose"))(params, hands), left
    )


@pytest.mark.parametrize(
    ("variant", "modalities", "first", "left"),
    [("pm", 2, 0, 8), ("act", 2, 1, 0), ("pm", 1, 0, 0), ("act", 1, 1, 0)],
)
def test_the_robot_is_written_into_its_region_and_nowhere_else(
    variant, modalities, first, left
):
    config = small(variant, modalities)
    width = 8 * modalities
    robot = draw((1, 3, 4, 8 * config.robot_modalities, 9), 1)
    x = draw((1, 3, 4, width, 5)), draw((1, 3, 4, width, 9)), robot
    net = Kinema4D(config)
    params = jax.eval_shape(net.init, jax.random.key(0), *x, np.zeros(1, np.float32))
    params = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), params)
    params["params"]["robot_latent"]["kernel"] = np.eye(5, dtype=np.float32)
    out = net.apply(params, x[1], robot, 0.5, method="inject")
    expected = x[1].copy()
    expected[:, first:, :, left:, :4] = robot[:, first:, ..., :4]
    expected[:, first:, :, left:, 4:] += 0.5 * robot[:, first:, ..., 4:]
    np.testing.assert_allclose(out, expected, atol=1e-6)
    assert ("domain" in params["params"]["robot_tokens"]) == (variant == "act")


@pytest.mark.parametrize(("variant", "added"), [("pm", 1_287_312), ("act", 1_287_568)])
def test_published_parameter_counts_and_names(variant, added):
    config = Kinema4DConfig(**{**kinema4d_14b(), "variant": variant})
    sizes = ((180, 16), (180, 20), (90 * config.robot_modalities, 20))
    x = [jax.ShapeDtypeStruct((1, 13, 60, *size), jnp.float32) for size in sizes]
    image = jax.ShapeDtypeStruct((1, 257, 1280), jnp.float32)
    tree = jax.eval_shape(Kinema4D(config).init, jax.random.key(0), *x, jnp.zeros(1), image)
    tree = tree["params"]
    assert sum(a.size for a in jax.tree.leaves(tree)) == 16_394_878_784 - 47_196_160 + added
    paths = {"/".join(k.key for k in path) for path, _ in jax.tree.leaves_with_path(tree)}
    table = wan_names.kinema4d(config)
    assert paths == {row.ours for row in table if not row.ours.startswith("text/")}
    assert sum(len(row.names()) for row in table) == 1303 + (11 if variant == "act" else 10)


def test_wrong_sizes_are_one_line(tiny):
    net, params, (noisy, condition, robot, time) = tiny
    for x, words in (
        ((noisy[:, :2], condition, robot), r"latent of \[2, 4, 16\].*need \[3, 4, 16\]"),
        (
            (noisy, condition[..., :8], robot),
            r"condition of shape \(2, 3, 4, 16, 8\): need",
        ),
        (
            (noisy, condition, condition),
            r"robot condition of shape .* need \(2, 3, 4, 8, 9\)",
        ),
    ):
        with pytest.raises(InputError, match=words) as error:
            net.apply(params, *x, time)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="in_channels=16: need 36"):
        Kinema4DConfig(dit=dit.DiTConfig(in_channels=16))
    with pytest.raises(InputError, match="variant='rgb'"):
        small(variant="rgb")
