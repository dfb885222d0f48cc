"""Kinema4D: velocities, every stage, one training step and its gradients."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.nets import condition as given
from w4d_jax.nets import dit, peer_config, wan_names, weights
from w4d_jax.nets.kinema4d import (
    LORA_TARGETS,
    Kinema4D,
    Kinema4DConfig,
    RobotTokens,
    joint_rope,
)
from w4d_jax.parity.check import Check, compare, compare_relative
from w4d_jax.parity.golden import Arrays, jit, last, load
from w4d_jax.parity.wan import compare_phases, run_blocks
from w4d_jax.train import flow


def checks(folder: Path, name: str, remat: str = "none") -> Iterator[Check]:
    """remat: what the backward pass keeps (`dit.REMAT`); the numbers are the same."""
    z, entry, tensors = load(folder, name)
    config = model_config(entry, remat)
    params = weights.from_torch(wan_names.kinema4d(config), tensors)
    yield from _velocities(config, params, z)
    yield from _stages(config, params, z)
    yield from _training(config, params, z)


def model_config(entry: dict[str, Any], remat: str = "none") -> Kinema4DConfig:
    size = dataclasses.replace(peer_config.wan(entry["transformer"]), remat=remat)
    return Kinema4DConfig(
        dit=size,
        variant=entry["variant"],
        robot_width=entry["robot_channels"],
        robot_patch=entry["robot_patch"][1],
        robot_grid=entry["robot_grid"],
    )


def _velocities(config: Kinema4DConfig, params, z: Arrays) -> Iterator[Check]:
    """Two forwards on one timestep, the second with the robot's latent added twice; and one
    on whole timesteps."""
    rest = last(z["condition"]), last(z["arm_cond"])
    forward = jit(
        lambda time, gain: Kinema4D(config).apply(
            {"params": params},
            last(z["noisy_latent"]),
            *rest,
            time,
            z["image_embedding"],
            gain=gain,
        )
    )
    for suffix, time, gain in (
        ("", z["timestep"], 1.0),
        ("_second", z["timestep"], 2.0),
        ("_int", z["timestep_int"].astype(np.float32), 1.0),
    ):
        name = f"velocity{suffix}"
        ours: Any = forward(time, gain)
        yield compare(name, ours[:, z[f"frames{suffix}"]], last(z[name]), 1e-4)
        yield from _statistics(name, ours, z)


def _stages(config: Kinema4DConfig, params, z: Arrays) -> Iterator[Check]:
    noisy, condition, robot = (
        last(z[name]) for name in ("noisy_latent", "condition", "arm_cond")
    )
    batch, width = len(noisy), config.dit.width

    @jit
    def stages(params):
        """Part by part, each with its own parameters."""

        def net(*args, method) -> Any:
            return Kinema4D(config).apply({"params": params}, *args, method=method)

        def robot_tokens(robot) -> Any:
            return RobotTokens(config).apply({"params": params["robot_tokens"]}, robot)

        def image_tokens(image) -> Any:
            part = {"params": params["dit"]["image"]}
            return dit.ImageEmbedder(config.dit).apply(part, image)

        part = {"params": params["dit"]["time"]}
        temb, modulation = dit.TimeEmbedder(config.dit).apply(part, z["timestep"])
        image, context = image_tokens(z["image_embedding"]), robot_tokens(robot)
        injected = [net(condition, robot, gain, method="inject") for gain in (1.0, 2.0)]
        x = net(jnp.concatenate([noisy, injected[0]], -1), method="embed")
        phases = jnp.asarray(joint_rope(x.shape[1:4], config))
        x = x.reshape(batch, -1, width)
        blocks = params["dit"]["blocks"]
        index, row = z["probe_token_index"], z["probe_row"]
        small = z["unit_block_in"]
        few = phases.reshape(2, -1, config.dit.head_dim // 2)[:, : small.shape[1]]
        first = jax.tree.map(lambda a: a[:1], (blocks, modulation, context, image))
        unit = run_blocks(config.dit, first[0], small, first[1], few, *first[2:])
        after = run_blocks(config.dit, blocks, x, modulation, phases, context, image)
        return (
            phases,
            after[:, :, index],
            {
                "probe_temb": temb,
                "probe_timestep_proj": modulation.reshape(batch, -1),
                "probe_image_tokens": image,
                "probe_robot_tokens": context,
                "probe_injected": jnp.moveaxis(injected[0][:, :, row], -1, 1),
                "probe_injected_second": jnp.moveaxis(injected[1][:, :, row], -1, 1),
                "probe_embed": x[:, index],
                "unit_robot_tokens_zero": robot_tokens(jnp.zeros_like(robot[:1])),
                "unit_image_tokens_small": image_tokens(z["image_embedding"][:1] / 512),
                "unit_block_out": unit[0],
            },
        )

    phases, blocks, ours = stages(params)
    tolerances = {
        "probe_temb": 5e-5,
        "probe_timestep_proj": 5e-5,
        "probe_image_tokens": 2e-5,
        "probe_robot_tokens": 2e-5,
        "probe_injected": 2e-6,
        "probe_injected_second": 2e-6,
        "probe_embed": 2e-5,
        "unit_robot_tokens_zero": 5e-5,
        "unit_image_tokens_small": 5e-5,
        "unit_block_out": 5e-5,
    }
    yield from compare_phases(phases, z)
    for name, tolerance in tolerances.items():
        yield compare(name, ours[name], z[name], tolerance)
    for i, block in enumerate(blocks):
        yield compare(f"probe_block_{i}", block, z[f"probe_block_{i}"], 1e-4)


def _training(config: Kinema4DConfig, params, z: Arrays) -> Iterator[Check]:
    """One step: its draws, mask, loss, and the gradient of every leaf that trains."""
    table = flow.training_table()
    index, sigma, time = z["train_index"], z["train_sigma"], z["train_timestep"]
    yield compare("train_timestep", table.timesteps[index], time, 1e-4)
    yield compare("train_sigma", table.sigmas[index], sigma, 1e-6)

    condition, robot = last(z["condition"]), last(z["arm_cond"])
    yield _softened(config, robot, z)

    x0, noise = last(z["train_x0"]), last(z["train_noise"])

    @jit
    def gradient(params):
        def loss(params):
            velocity = Kinema4D(config).apply(
                {"params": params},
                flow.noised(x0, noise, sigma),
                condition,
                robot,
                time,
                z["image_embedding"],
            )
            each = flow.velocity_loss(velocity, x0, noise)
            return each.mean(), (each, velocity)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, (each, velocity)), grad = gradient(params)
    yield compare("train_loss", loss, z["train_loss"], 1e-5)
    yield compare("train_loss_per_sample", each, z["train_loss_per_sample"], 1e-5)
    yield from _statistics("train_pred", velocity, z)

    grad = weights.to_torch(wan_names.kinema4d(config), grad)
    for name in sorted({f"grad/{name}" for name in _trained(config)} | _gradients(z)):
        ours = grad[name.removeprefix("grad/")]
        yield compare_relative(name, ours, z[name], 1e-3)


def _trained(config: Kinema4DConfig) -> set[str]:
    """Their names of what is added, and of the matrices that low-rank pairs stand on."""
    adapted = {
        name
        for row in wan_names.wan(config.dit)
        if re.fullmatch(f"{LORA_TARGETS}/kernel", row.ours)
        for name in row.names()
    }
    return adapted | {row.theirs for row in wan_names.kinema4d_added(config.variant)}


def _gradients(z: Arrays) -> set[str]:
    return {name for name in z if name.startswith("grad/")}


def _statistics(name: str, ours, z: Arrays) -> Iterator[Check]:
    """Mean and root mean square over the pixels of each latent frame. ours f[B,t,h,W,C]."""
    ours = np.asarray(ours, np.float64)
    mean, rms = ours.mean((2, 3)), np.sqrt((ours**2).mean((2, 3)))
    for kind, value in (("mean", mean), ("rms", rms)):
        theirs = np.moveaxis(z[f"{name}_{kind}"], 1, 2)
        yield compare(f"{name}_{kind}", value, theirs, 5e-5)


def _softened(config: Kinema4DConfig, robot, z: Arrays) -> Check:
    """The robot's mask channels, made of the pixels; which ones were softened is theirs to
    draw, where and how many is not."""
    pixels, M = z["train_arm_mask_pixels"][..., 0], config.mask_channels
    h, w = robot.shape[2], robot.shape[3] // config.robot_modalities
    stride = M, pixels.shape[2] // h, pixels.shape[3] // w
    cells = given.latent_mask(pixels, stride)
    theirs = robot[..., :M]
    soft = given.soften_first(cells, theirs[:, :, :, :w, 0])  # 0.5 comes before 1
    ours = jnp.concatenate([given.mask_channels(soft, M)] * config.robot_modalities, axis=3)
    return compare("train_arm_mask_pixels", ours, theirs, 0)
