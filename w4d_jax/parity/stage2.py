"""WristWorld's video model: context, network, schedules, guidance, 50 steps of sampling."""

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.nets import dit
from w4d_jax.nets.ops import rope, rope_pairs, sinusoid
from w4d_jax.nets.weights import from_torch
from w4d_jax.nets.wristworld import ViewTokens, WristWorld, WristWorldConfig
from w4d_jax.nets.wristworld_names import wristworld
from w4d_jax.parity.check import Check, compare
from w4d_jax.parity.golden import Arrays, jit, last, load
from w4d_jax.parity.scheduler import walk
from w4d_jax.sample.guidance import guided
from w4d_jax.sample.solver import bfloat16_times, euler, even_schedule
from w4d_jax.train.flow import bell_weights, noised, training_table


def checks(folder: Path) -> Iterator[Check]:
    z, entry, tensors = load(folder, "stage2")
    config = _config(entry)
    params = from_torch(wristworld(config), tensors)
    yield from _context(z, config, params)
    yield from _network(z, config, params)
    yield from _schedules(z, entry)

    net = jit(lambda params, *inputs: WristWorld(config).apply({"params": params}, *inputs))
    noisy, control = (last(x) for x in np.split(z["forward/latents"], 2, axis=1))
    inputs = noisy, control, z["forward/timestep"], z["text_context"], z["ext_frame_feats"]
    velocity = net(params, *inputs)
    yield compare("forward/velocity", velocity, last(z["forward/velocity"]), 5e-5)
    small = from_torch(wristworld(config), _shrunk(tensors, entry["small_scale"]))
    velocity = net(small, *inputs)
    yield compare(
        "forward_small/velocity", velocity, last(z["forward_small/velocity"]), 5e-5
    )
    yield from _sampling(z, entry, lambda *inputs: net(params, *inputs))


def _config(entry) -> WristWorldConfig:
    """The original constructors' arguments, in our words."""
    sizes, ext = entry["dit"], entry["ext"]
    network = dit.DiTConfig(
        in_channels=sizes["in_dim"],
        out_channels=sizes["out_dim"],
        width=sizes["dim"],
        heads=sizes["num_heads"],
        layers=sizes["num_layers"],
        ffn=sizes["ffn_dim"],
        patch=sizes["patch_size"],
        frequencies=sizes["freq_dim"],
        text_dim=sizes["text_dim"],
        eps=sizes["eps"],
    )
    return WristWorldConfig(
        network,
        feature_dim=ext["feature_dim"],
        hidden=ext["hidden"],
        views=ext["views"],
        frames=ext["temporal_capacity"],
    )


def _shrunk(tensors, factors: dict[str, float]):
    """The checkpoint with the weights that the patterns name multiplied."""

    def factor(name):
        name = name.removeprefix("denoising_model.").replace(".module", "")
        return next((s for pattern, s in factors.items() if fnmatch(name, pattern)), 1.0)

    return {name: np.float32(factor(name)) * value for name, value in tensors.items()}


def _context(z: Arrays, config: WristWorldConfig, params) -> Iterator[Check]:
    features, views = z["ext_frame_feats"], params["views"]
    marked = features + views["time"][: features.shape[2]] + views["view"][:, None]
    yield compare("ext_proj_input", marked, z["ext_proj_input"], 5e-5)
    tokens = ViewTokens(config).apply({"params": views}, features)
    yield compare("ext_tokens", tokens, z["ext_tokens"], 5e-5)

    def context(seen):
        arguments = z["text_context"], features, seen
        return WristWorld(config).apply({"params": params}, *arguments, method="context")

    yield compare("context", context(None), z["context"], 5e-5)
    yield compare("context, withheld", context(jnp.zeros(1)), z["text_context"], 0)


def _network(z: Arrays, config: WristWorldConfig, params) -> Iterator[Check]:
    """The transformer, stage by stage."""
    stages, size = params["dit"], config.dit
    embedding, modulation = dit.TimeEmbedder(size).apply(
        {"params": stages["time"]}, z["forward/timestep"]
    )
    text = dit.TextEmbedder(size).apply({"params": params["text"]}, z["context"])
    x = dit.DiT(size).apply({"params": stages}, last(z["forward/latents"]), method="embed")
    grid = x.shape[1:4]
    phases = rope(grid, size.head_dim).reshape(2, -1, size.head_dim // 2)
    x = x.reshape(len(x), -1, size.width)
    for name, ours, tolerance in (
        ("forward/time_embedding", embedding, 5e-5),
        ("forward/time_projection", modulation, 5e-5),
        ("forward/context_embedding", text, 5e-5),
        ("forward/tokens", x, 5e-5),
        ("rope_split", rope_pairs(size.head_dim), 0),
        ("rope_cos", phases[0], 1e-6),
        ("rope_sin", phases[1], 1e-6),
    ):
        yield compare(name, ours, z[name], tolerance)
    block = jit(dit.Block(size).apply)
    for i in range(size.layers):
        weights = {"params": jax.tree.map(lambda a, i=i: a[i], stages["blocks"])}
        x = block(weights, x, modulation, phases, text)
        yield compare(f"forward/block_{i}", x, z[f"forward/block_{i}"], 5e-5)
    # Our phases are float32, so that the limits are those of the golden file's page for it.
    exact, rounded = (z[f"sinusoid/timestep{end}"] for end in ("", "_bf16"))
    ours = sinusoid(exact, size.frequencies)
    yield compare("sinusoid/fp32", ours, z["sinusoid/fp32"], 1e-4)
    cast = np.asarray(jnp.asarray(exact, jnp.bfloat16), np.float32)
    yield compare("sinusoid/timestep_bf16", cast, rounded, 0)
    ours = sinusoid(rounded, size.frequencies).astype(jnp.bfloat16)
    yield compare("sinusoid/bf16", ours, z["sinusoid/bf16"], 2**-8)


def _schedules(z: Arrays, entry) -> Iterator[Check]:
    steps, shift = entry["steps"], entry["shift"]
    schedule = even_schedule(steps, shift)
    table = training_table(len(z["schedule/train_timesteps"]), shift)
    rounded = bfloat16_times(schedule).timesteps
    for name, ours, tolerance in (
        (f"sigmas_{steps}", schedule.sigmas[:-1], 1e-6),
        (f"timesteps_{steps}", schedule.timesteps, 1e-3),
        (f"timesteps_{steps}_bf16", rounded, 0),
        ("sigmas_10", even_schedule(10, shift).sigmas[:-1], 1e-6),
        ("sigmas_10_strength07_shift3", even_schedule(10, 3, 0.7).sigmas[:-1], 1e-6),
        ("train_timesteps", table.timesteps, 1e-3),
        ("train_weights", bell_weights(table), 2e-6),
    ):
        yield compare(f"schedule/{name}", ours, z[f"schedule/{name}"], tolerance)
    x0, noise = z["control_latents"], z["noise"]
    for index in (137, 871):
        name = f"schedule/add_noise_{index}"
        ours = noised(x0, noise, table.sigmas[index : index + 1])
        yield compare(name, ours, z[name], 5e-6)
    yield compare("schedule/target", noise - x0, z["schedule/target"], 1e-6)


def _sampling(z: Arrays, entry, net) -> Iterator[Check]:
    """Guidance, and the latents along the way with exact and with rounded timesteps."""
    control, features = last(z["control_latents"]), z["ext_frame_feats"]

    def field(text, seen):
        def velocity(x, sigma, timestep):
            time = jnp.reshape(timestep, 1)
            return net(x, control, time, text, features, jnp.full(1, seen))

        return velocity

    positive = field(z["text_context"], 1.0)
    negative = field(z["negative_context"], 0.0)
    both = guided(positive, negative, entry["cfg_scale"])
    schedule = even_schedule(entry["steps"], entry["shift"])
    start = last(z["noise"])
    for name, velocity, tolerance in (
        ("sample/v_positive_0", positive, 5e-5),
        ("sample/v_negative_0", negative, 5e-5),
        ("sample/v_guided_0", both, 1e-4),
    ):
        ours = velocity(start, schedule.sigmas[0], jnp.asarray(schedule.timesteps[0]))
        yield compare(name, ours, last(z[name]), tolerance)
    kept = z["sample/kept_steps"] + 1  # of the states, of which the first is the noise
    for name, told in (
        ("states", schedule),
        ("states_bf16_time", bfloat16_times(schedule)),
    ):
        states, _ = walk(both, start, told, euler)
        theirs = np.moveaxis(z[f"sample/{name}"], 2, -1)
        yield compare(f"sample/{name}", states[kept], theirs, 1e-4)
