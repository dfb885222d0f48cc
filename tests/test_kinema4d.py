"""Kinema4D: the reference's numbers and gradients; what the robot may change."""

import dataclasses
from functools import cache

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import close, last

from w4d_jax.nets import dit, weights
from w4d_jax.nets.kinema4d import (
    Kinema4D,
    Kinema4DConfig,
    RobotTokens,
    joint_rope,
    kinema4d_14b,
)
from w4d_jax.types import InputError

VARIANTS = ("kinema4d_act", "kinema4d_pm")


@cache
def model(name):
    """Arrays, config, parameters, compiled forward of one golden model."""
    arrays, config, tensors = golden.load(name)
    config = golden.kinema4d_config(config)
    params = weights.from_torch(weights.kinema4d(config), tensors)
    forward = golden.jit(lambda noisy, condition, robot, *rest: Kinema4D(config).apply(
        {"params": params}, noisy, condition, robot, *rest
    ))  # fmt: skip
    return arrays, config, params, forward


def inputs(z):
    return last(z["noisy_latent"]), last(z["condition"]), last(z["arm_cond"])


@golden.present
@pytest.mark.parametrize("name", VARIANTS)
def test_velocity_is_the_reference_and_so_is_its_second_forward(name):
    z, _, _, forward = model(name)
    for key, time, gain in (
        ("velocity", z["timestep"], 1.0),
        ("velocity_second", z["timestep"], 2.0),
        ("velocity_int", z["timestep_int"].astype(np.float32), 1.0),
    ):
        out = np.asarray(forward(*inputs(z), time, z["image_embedding"], gain))
        kept = z["frames" + key.removeprefix("velocity")]
        close(out[:, kept], last(z[key]), 1e-4)
        close(out.mean((2, 3)), np.moveaxis(z[f"{key}_mean"], 1, 2), 5e-5)
        close(np.sqrt((out**2).mean((2, 3))), np.moveaxis(z[f"{key}_rms"], 1, 2), 5e-5)


@golden.present
@pytest.mark.parametrize("name", VARIANTS)
def test_every_stage_is_the_reference(name):
    z, config, params, _ = model(name)
    noisy, condition, robot = inputs(z)
    net = golden.jit(Kinema4D(config).apply, static_argnames="method")
    for key, gain in (("probe_injected", 1.0), ("probe_injected_second", 2.0)):
        injected = net({"params": params}, condition, robot, gain, method="inject")
        close(injected[:, :, z["probe_row"]], np.moveaxis(z[key], 1, -1), 2e-6)
    injected = net({"params": params}, condition, robot, method="inject")
    tokens = net({"params": params}, jnp.concatenate([noisy, injected], -1), method="embed")
    phases = joint_rope(tokens.shape[1:4], config).reshape(2, -1, config.dit.head_dim // 2)
    close(phases, np.stack([z["rope_cos"], z["rope_sin"]]), 1e-6)
    x = tokens.reshape(len(noisy), -1, config.dit.width)
    close(x[:, z["probe_token_index"]], z["probe_embed"], 2e-5)

    part = params["dit"]
    temb, modulation = dit.TimeEmbedder(config.dit).apply(
        {"params": part["time"]}, z["timestep"]
    )
    close(temb, z["probe_temb"], 5e-5)
    close(modulation.reshape(len(noisy), -1), z["probe_timestep_proj"], 5e-5)

    def embed_robot(robot):
        return RobotTokens(config).apply({"params": params["robot_tokens"]}, robot)

    def embed_image(image):
        return dit.ImageEmbedder(config.dit).apply({"params": part["image"]}, image)

    close(embed_robot(robot), z["probe_robot_tokens"], 2e-5)
    close(embed_robot(jnp.zeros_like(robot[:1])), z["unit_robot_tokens_zero"], 5e-5)
    close(embed_image(z["image_embedding"]), z["probe_image_tokens"], 2e-5)
    close(embed_image(z["image_embedding"][:1] / 512), z["unit_image_tokens_small"], 5e-5)

    block = golden.jit(dit.Block(config.dit).apply)
    context = embed_robot(robot), embed_image(z["image_embedding"])
    small = z["unit_block_in"]
    first = (a[:1] for a in (modulation, *context))
    out = block({"params": golden.layer(part["blocks"], 0)}, small, next(first),
                phases[:, : small.shape[1]], *first)  # fmt: skip
    close(out, z["unit_block_out"], 5e-5)
    for i in range(config.dit.layers):
        weight = {"params": golden.layer(part["blocks"], i)}
        x = block(weight, x, modulation, phases, *context)
        close(x[:, z["probe_token_index"]], z[f"probe_block_{i}"], 1e-4)


@golden.present
@pytest.mark.parametrize(
    ("name", "remat"), [("kinema4d_act", "none"), ("kinema4d_pm", "attention")]
)
def test_loss_and_gradients_are_the_reference(name, remat):
    """Whatever the backward pass keeps."""
    z, config, params, _ = model(name)
    config = dataclasses.replace(config, dit=dataclasses.replace(config.dit, remat=remat))
    _, condition, robot = inputs(z)
    sigma = z["train_sigma"][:, None, None, None, None]
    x0, noise = last(z["train_x0"]), last(z["train_noise"])
    noisy = (1 - sigma) * x0 + sigma * noise

    @golden.jit
    def gradient(params):
        def loss(params):
            velocity = Kinema4D(config).apply(
                {"params": params}, noisy, condition, robot, z["train_timestep"],
                z["image_embedding"],
            )  # fmt: skip
            return ((velocity - (noise - x0)) ** 2).mean((1, 2, 3, 4)).mean(), velocity

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, velocity), grad = gradient(params)
    velocity = np.asarray(velocity)
    assert float(loss) == pytest.approx(float(z["train_loss"]), abs=1e-5)
    close(velocity.mean((2, 3)), np.moveaxis(z["train_pred_mean"], 1, 2), 5e-5)
    close(np.sqrt((velocity**2).mean((2, 3))), np.moveaxis(z["train_pred_rms"], 1, 2), 5e-5)

    grad = weights.to_torch(weights.kinema4d(config), grad)
    keys = [key for key in z if key.startswith("grad/")]
    added = {row.theirs for row in weights.kinema4d_added(config)}
    assert added < {key.removeprefix("grad/") for key in keys}
    for key in keys:
        error = np.linalg.norm(grad[key.removeprefix("grad/")] - z[key])
        assert error < 1e-3 * np.linalg.norm(z[key]), key
    dead = [key for key in grad if "text_embedder" in key]
    assert dead and not any(grad[key].any() for key in dead)


@pytest.fixture(scope="module")
def tiny():
    """A pm model without image tokens, its inputs and its fresh parameters."""
    config = small(variant="pm")
    x = draw((2, 3, 4, 16, 5)), draw((2, 3, 4, 16, 9), 1), draw((2, 3, 4, 8, 9), 2)
    time = np.array([10, 900], np.float32)
    params = golden.jit(Kinema4D(config).init)(jax.random.key(0), *x, time)
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
    forward = golden.jit(net.apply)
    before = forward(params, noisy, condition, robot, time)
    other = robot.copy()
    other[..., 4:] = draw(other[..., 4:].shape, 9)
    np.testing.assert_array_equal(forward(params, noisy, condition, other, time), before)
    other[..., :4] += 1
    assert np.abs(forward(params, noisy, condition, other, time) - before).max() > 1e-3


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
    table = weights.kinema4d(config)
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
