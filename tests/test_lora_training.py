"""Beside a frozen base: what trains, what a checkpoint holds, codecs out of files, and the
presets of full size, traced without a byte of them."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from runs import REPO, batch_of, write_config, write_noise
from safetensors.numpy import save_file

from w4d_jax.nets import lora, vae
from w4d_jax.nets.checkpoint import write_checkpoint
from w4d_jax.nets.codec import WanCodec
from w4d_jax.nets.kinds import export_kind, import_kind
from w4d_jax.nets.kinema4d import ADDED
from w4d_jax.nets.vae_names import vae as vae_names
from w4d_jax.nets.weights import to_torch
from w4d_jax.train import denoise, kinema4d, loop
from w4d_jax.train.codec import load_codec
from w4d_jax.train.config import load_config
from w4d_jax.train.optim import OptimizerConfig, optimizer
from w4d_jax.train.state import init_state, make_update
from w4d_jax.train.task import build
from w4d_jax.train.trained import load_trained
from w4d_jax.types import InputError

KEY = jax.random.key(0)
PAIRS = {"rank": 4, "alpha": 8.0}
SIZES = {"base": 2, "multipliers": (1, 2), "blocks": 1, "temporal": (True,)}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("lora")
    return write_config(home / "config.py", write_noise(home / "train", [0, 1]), home)


@pytest.fixture(scope="module")
def batch(home):
    return batch_of(home.parent / "train")


def config_of(home, **changes):
    """The smallest config; changes: group={key: value}."""
    config = load_config(str(home))
    with config.unlocked():
        config.model.dit.ffn = 48  # the shape of its matrices is nothing else's
        for group, values in changes.items():
            config[group].update(values)
    return config


def of_wan(home, **changes):
    config = config_of(home)
    with config.unlocked():
        config.codec = {"wan": {"weights": "", "chunk": None} | SIZES | changes}
        config.condition.outcomes = False  # those are of the exact codec alone
    return config


def full(preset, **model):
    config = load_config(f"{REPO / 'configs/kinema4d.py'}:{preset}")
    config.model.update(model)
    return config


def count(tree) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# ------ low-rank pairs


def drawn(task):
    """Parameters without a zero among them, and a base: a fresh head says nothing."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(task.init, KEY)
    return jax.tree.map(lambda x: jnp.float32(0.1 * rng.normal(size=x.shape)), shapes)


def test_pairs_learn_and_the_base_rests(home, batch):
    task = build(config_of(home, lora=PAIRS))
    params, frozen = drawn(task)
    assert set(params) == {"lora", "added"} and set(params["added"]) == set(ADDED)
    assert not set(frozen["model"]) & set(ADDED)
    before = jax.tree.map(np.array, (params, frozen))
    tx = optimizer(OptimizerConfig(lr=1e-2, warmup=1), 4)
    update = jax.jit(make_update(task.loss, tx, 0.9))
    state, losses = init_state(params, tx), []
    for _ in range(4):
        state, metrics = update(state, frozen, batch, jax.random.key(1))
        losses.append(float(metrics["loss"]))
        state = state._replace(step=jnp.zeros((), jnp.int32))  # the same noise again
    # The first step is of no length: the learning rate starts at zero.
    assert losses[3] < losses[2] < losses[1] <= losses[0]
    equal(frozen, before[1])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, before[0])
    assert all(jax.tree.leaves(moved))


def products(jaxpr):
    """Shapes of all matrix products of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.outvars[0].aval.shape
        for part in jaxprs_in_params(equation.params):
            yield from products(part)


@pytest.mark.parametrize("rank", [0, 4])
def test_no_gradient_of_a_frozen_matrix_is_formed(home, batch, rank):
    task = build(config_of(home, lora={"rank": rank}))
    params, frozen = jax.eval_shape(task.init, KEY)
    gradient = jax.grad(lambda *a: task.loss(*a)[0])
    shapes = set(products(jax.make_jaxpr(gradient)(params, frozen, batch, KEY).jaxpr))
    matrices = {(32, 48), (48, 32), (32, 32)}  # of the feed-forward and the attentions
    assert bool(matrices & shapes) == (rank == 0)


def test_merged_is_unmerged(home, batch):
    clean = {"prediction": "clean"}  # the network's output as it is
    still = {"outcomes": False}
    config = config_of(home, lora=PAIRS, flow=clean, condition=still)
    task = kinema4d.build(config)
    params, frozen = drawn(task)
    base = lora.join(frozen["model"], params["added"])
    merged = lora.merge(base, params["lora"], PAIRS["alpha"] / PAIRS["rank"])
    known = task.joint.known(batch)
    x = jax.random.normal(KEY, (2, *known.condition.shape[1:4], task.joint.codec.channels))

    @jax.jit
    def believed(variables):
        net, anchor = task.network(variables, known), task.joint.anchor(known)
        sigma = jnp.array([0.3, 0.8])
        return denoise.estimate(task.flow, net, x, sigma, anchor).clean

    apart = believed(task.lora.variables(params, frozen["model"]))
    np.testing.assert_allclose(apart, believed({"params": merged}), atol=1e-4)
    assert np.abs(apart - believed({"params": base})).max() > 1e-2


def test_a_run_holds_what_trains_and_draws_the_rest_again(home):
    workdir = home.parent / "run"
    config = config_of(home, lora=PAIRS)
    config.update(steps=2, sample_every=2)
    with config.unlocked():
        config.data.store.test = config.data.store.train
    loop.run(config, workdir)
    run = load_trained(workdir)
    assert run.step == 2 and set(run.params) == {"lora", "added"}
    assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(run.params["added"]))
    tx = optimizer(OptimizerConfig(**config.optimizer), config.steps)

    def start(key):
        params, frozen = run.task.init(key)
        return init_state(params, tx), frozen

    equal(jax.jit(start)(jax.random.key(config.seed))[1], run.frozen)
    for key, value in (("seed", 1), ("lora.rank", 2)):
        other = config.copy_and_resolve_references()
        other.update_from_flattened_dict({key: value})
        with pytest.raises(InputError, match=f"its run has {key}="):
            loop.run(other, workdir)


def test_a_negative_rank(home):
    with pytest.raises(InputError, match=r"lora\.rank=-1: need 0"):
        build(config_of(home, lora={"rank": -1}))


# ------ the learned codec


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Weights of another seed than any run's: path, tensors."""
    config = vae.VAEConfig(**SIZES)
    tensors = to_torch(vae_names(config), vae.init(jax.random.key(7), config))
    path = tmp_path_factory.mktemp("weights") / "vae.safetensors"
    save_file(tensors, path)
    return path, tensors


def test_a_codec_from_a_file_is_an_argument(home, batch, file):
    config = of_wan(home, weights=str(file[0]))
    task = build(config)
    params, frozen = jax.jit(task.init)(KEY)
    loaded = task.load(frozen)
    codec = loaded["codec"]
    named = to_torch(vae_names(codec.config), codec.params)
    equal(named, file[1])
    equal(build(of_wan(home)).load(frozen), frozen)

    program = jax.make_jaxpr(task.loss)(params, frozen, batch, KEY)
    assert count([np.asarray(x) for x in program.consts]) < count(codec.params) / 4

    @jax.jit
    def coded(frozen):
        bound = kinema4d.build(config).joint.bound(frozen)
        alone = frozen["codec"].encode(jnp.float32(batch["rgb"]) / 127.5 - 1)
        loss, _ = task.loss(params, frozen, batch, KEY)
        return loss, bound.known(batch).condition, bound.encode(batch), alone

    loss, condition, target, alone = coded(loaded)
    assert np.isfinite(loss) and loss != coded(frozen)[0]
    # As the authors do: the condition coded as one wide picture, the target apart.
    condition, target = (np.split(x, 2, axis=3)[0] for x in (condition[..., 2:], target))
    np.testing.assert_allclose(target * config.condition.rgb_std, alone, atol=1e-5)
    assert np.abs(condition[:, 0] - alone[:, 0]).max() > 1e-3
    video = jax.eval_shape(task.sample, params, loaded, batch, KEY)
    assert video.rgb.shape == video.pointmap.shape == (2, 5, 16, 16, 3)


def test_a_codec_in_any_form(file, tmp_path):
    """One file, shards of it, Wan2.1's own file, and what was imported."""
    config = vae.VAEConfig(**SIZES)
    for folder in ("shards", "own", "ours", "other"):
        (tmp_path / folder).mkdir()
    found = import_kind("vae", file[0], config)
    write_checkpoint(tmp_path / "ours", found)
    other = dataclasses.replace(config, mean=tuple(2.0 * m for m in config.mean))
    write_checkpoint(tmp_path / "other", found._replace(config=other))
    export_kind("vae", found, tmp_path / "shards", 2_000)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    export_kind("vae-original", found, tmp_path / "own")
    own = next((tmp_path / "own").glob("*.pth"))
    drawn = WanCodec(None, config).init(KEY)
    for path in (tmp_path / "shards", own, tmp_path / "ours"):
        equal(load_codec(str(path), drawn), load_codec(str(file[0]), drawn))
    with pytest.raises(InputError, match=r"codec.wan.weights: .*other: has mean=\("):
        load_codec(str(tmp_path / "other"), drawn)


@pytest.mark.parametrize("kind", ["cut", "foreign", "empty", "missing", "names", "sizes"])
def test_bad_weights(home, file, tmp_path, kind):
    path, tensors = tmp_path / "bad.safetensors", dict(file[1])
    said = "no such file" if kind == "missing" else "no whole .safetensors file"
    if kind == "names":
        tensors.pop("quant_conv.bias")
        save_file(tensors, path)
        said = r"1 tensors missing \(quant_conv.bias\)"
    elif kind == "sizes":
        tensors["quant_conv.bias"] = np.zeros(5, np.float32)
        save_file(tensors, path)
        said = r"encoder/quant/bias is \[5\], need \[32\] by its config"
    elif kind != "missing":
        whole = file[0].read_bytes()
        path.write_bytes({"cut": whole[:-5], "foreign": b"PK" + whole, "empty": b""}[kind])
    task = build(of_wan(home, weights=str(path)))
    frozen = jax.eval_shape(task.init, KEY)[1]
    with pytest.raises(InputError, match=f"codec.wan.weights: .*{said}") as caught:
        task.load(frozen)
    assert "\n" not in str(caught.value)


def test_an_unknown_codec(home):
    config = config_of(home)
    with config.unlocked():
        config.codec = {"jpeg": {}}
    with pytest.raises(InputError, match="exactly one of cosine, wan"):
        build(config)


# ------ full size


def shapes_of(config):
    """A batch of one, of nothing but shapes."""
    T, H, W = (config.data[key] for key in ("frames", "height", "width"))
    sizes = {"depth": (T, H, W), "robot_depth": (T, H, W), "K": (3, 3), "scale": ()}
    sizes |= {"cam_from_world": (T, 4, 4), "center": (3,)}
    batch = {k: jax.ShapeDtypeStruct((1, *v), "float32") for k, v in sizes.items()}
    for name in ("rgb", "robot_rgb"):
        batch[name] = jax.ShapeDtypeStruct((1, T, H, W, 3), "uint8")
    return batch


@pytest.mark.parametrize("preset", ["1b", "14b"])
def test_full_size_traces(preset):
    config = full(preset)
    task = build(config)
    params, frozen = jax.eval_shape(task.init, KEY)
    batch = shapes_of(config)
    step = jax.value_and_grad(task.loss, has_aux=True)
    (loss, _), gradient = jax.eval_shape(step, params, frozen, batch, KEY)
    assert loss.shape == () and loss.dtype == jnp.float32
    assert gradient == params  # alike in shapes and types
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    video = jax.eval_shape(task.sample, params, frozen, batch, KEY)
    assert video.rgb.shape == video.pointmap.shape == (1, 49, 480, 720, 3)


def test_what_the_paper_trains():
    for variant, added in (("act", 1_287_568), ("pm", 1_287_312)):
        params, frozen = jax.eval_shape(build(full("14b", variant=variant)).init, KEY)
        assert count(params["added"]) == added
        assert count(params["lora"]) == 209_715_200
        # All of Wan but its text embedder, which this model has no use for.
        assert count(frozen["model"]) == 16_394_878_784 - 47_196_160
    assert count(frozen["codec"]) == 126_892_531
    assert count(frozen["image"]) == 630_766_080


def test_image_tokens_are_asked_for():
    config = full("14b")
    with config.unlocked():
        config.image = {}
    task = build(config)
    params, frozen = jax.eval_shape(task.init, KEY)
    with pytest.raises(InputError, match=r"no image tokens, model\.dit\.image_dim=1280"):
        jax.eval_shape(task.loss, params, frozen, shapes_of(config), KEY)
