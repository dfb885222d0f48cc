"""Runs that start from imported weights, and what they are exported as."""

import dataclasses

import jax
import numpy as np
import pytest
from runs import REPO, tool, write_config, write_noise

from w4d_jax.nets import lora
from w4d_jax.nets.adapter import AdapterConfig, export_adapter, import_adapter
from w4d_jax.nets.checkpoint import Checkpoint, write_checkpoint
from w4d_jax.nets.kinds import export_kind, import_kind
from w4d_jax.nets.kinema4d import LORA_TARGETS
from w4d_jax.nets.lazy import held
from w4d_jax.nets.models import MODELS
from w4d_jax.nets.weights import flat, tree
from w4d_jax.train import kinema4d, loop
from w4d_jax.train.config import load_config
from w4d_jax.train.export import run_checkpoint
from w4d_jax.train.program import program
from w4d_jax.train.trained import load_trained
from w4d_jax.types import InputError

RANK, ALPHA = 4, 8.0


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("start")
    return write_config(home / "config.py", write_noise(home / "train", [0, 1]), home)


def config_of(home, rank=RANK, **model):
    config = load_config(str(home))
    with config.unlocked():
        config.lora = {"rank": rank, "alpha": ALPHA}
        config.model.dit.ffn = 48
        config.condition.outcomes = False  # the authors' files have no place for a choice
        config.model.update(model)
        config.data.store.test = config.data.store.train
    return config


def numbers(shapes, seed=0) -> dict:
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape).astype("f4") for path, shape in shapes.items()}


def write(folder, model, config, leaves) -> str:
    folder.mkdir()
    held_leaves = {path: held(x) for path, x in leaves.items()}
    write_checkpoint(folder, Checkpoint(model, config, held_leaves))
    return str(folder)


@pytest.fixture(scope="module")
def base(home):
    """A Wan that fits the smallest config: its sizes, its numbers, its folder."""
    dit = kinema4d.build(config_of(home)).net.config.dit
    leaves = numbers(MODELS["wan"].shapes(dit))
    return dit, leaves, write(home.parent / "wan", "wan", dit, leaves)


@pytest.fixture(scope="module")
def adapter(home, base):
    """The same of 4DNeX's adapter on it."""
    dit, leaves, _ = base
    pairs = jax.eval_shape(
        lambda: lora.init(jax.random.key(0), tree(leaves), RANK, LORA_TARGETS)
    )
    shapes = {f"lora/{path}": x.shape for path, x in flat(pairs).items()}
    leaves = numbers(shapes | {"added/domain": (2, dit.width)}, 1)
    config = AdapterConfig(dit.layers, RANK, ALPHA / RANK)
    return config, leaves, write(home.parent / "nex", "adapter", config, leaves)


def drawn(task):
    return jax.jit(task.init)(jax.random.key(0))


def test_pairs_beside_an_imported_base(home, base, adapter):
    task = kinema4d.build(config_of(home, base=base[2], adapter=adapter[2]))
    params, frozen = drawn(task)
    places = jax.tree.map(lambda x: x.sharding, frozen["model"])
    kept = flat(params["added"]["robot_tokens"])
    model, begun = task.load(frozen)["model"], task.begin(params)
    for path, leaf in flat(model).items():
        np.testing.assert_array_equal(leaf, base[1][path])
    assert jax.tree.map(lambda x: x.sharding, model) == places
    assert all(x.is_deleted() for x in jax.tree.leaves(frozen["model"]))
    for path, leaf in flat(begun["lora"]).items():
        np.testing.assert_array_equal(leaf, adapter[1][f"lora/{path}"])
    np.testing.assert_array_equal(begun["added"]["domain"], adapter[1]["added/domain"])
    assert all(x is kept[path] for path, x in flat(begun["added"]["robot_tokens"]).items())


def test_all_of_a_wider_network_trains_from_a_base(home, base, tmp_path):
    """Channels that the base does not know start at zero; what it lacks stays drawn."""
    dit, leaves, _ = base
    patch = leaves["dit/patch/kernel"][:, :, :, :5]
    narrow = dataclasses.replace(dit, in_channels=5)
    few = leaves | {"dit/patch/kernel": patch}
    folder = write(tmp_path / "narrow", "wan", narrow, few)
    task = kinema4d.build(config_of(home, rank=0, base=folder))
    params, frozen = drawn(task)
    before = {name: flat(params[name]) for name in ("robot_tokens", "robot_latent")}
    assert task.load(frozen)["model"] == {}
    begun = task.begin(params)
    kernel = begun["dit"]["patch"]["kernel"]
    np.testing.assert_array_equal(kernel[:, :, :, :5], patch)
    assert not kernel[:, :, :, 5:].any() and kernel.shape[3] == dit.in_channels
    for path, leaf in flat(begun["dit"]).items():
        if path != "patch/kernel":
            np.testing.assert_array_equal(leaf, leaves[f"dit/{path}"])
    for name, old in before.items():
        assert all(flat(begun[name])[path] is x for path, x in old.items())
    with pytest.raises(InputError, match=r"takes 5 channels, the network \d+; fewer will"):
        task = kinema4d.build(config_of(home, base=folder))
        task.load(drawn(task)[1])


def test_a_run_from_imported_weights_and_its_export(
    home, base, adapter, tmp_path, monkeypatch
):
    """The loop with steps that change nothing: no time goes into compiling real ones."""
    config = config_of(home, base=base[2], adapter=adapter[2])
    config.update(steps=1, sample_every=1)

    def still(config):
        video = np.zeros((4, *(config.data[n] for n in ("frames", "height", "width")), 3))
        return program(config)._replace(
            update=lambda state, *_: (state, {"loss": 0.0, "grad_norm": 0.0}),
            sample=lambda *_: kinema4d.Video(video, video, None),
        )

    monkeypatch.setattr(loop, "program", still)
    loop.run(config, tmp_path / "run")
    run = load_trained(tmp_path / "run")
    assert run.step == 1
    for path, x in flat(run.params["lora"]).items():
        np.testing.assert_array_equal(x, adapter[1][f"lora/{path}"])
    made = run_checkpoint(tmp_path / "run")
    assert made.model == "adapter" and made.config.scale == ALPHA / RANK
    assert made.config.variant == kinema4d.build(config).net.config.variant
    (tmp_path / "theirs").mkdir()
    export_adapter(tmp_path / "theirs", made)
    back = import_adapter(tmp_path / "theirs", ALPHA / RANK)
    assert back.config == made.config
    for path, leaf in flat(run.params).items():
        np.testing.assert_array_equal(back.leaves[path], leaf)


def test_no_steps_are_the_imported_weights_themselves(home, base, adapter, tmp_path):
    config = config_of(home, base=base[2], adapter=adapter[2])
    config.update(steps=0)
    config.data.store.update(train="", test="")  # nobody asks for data
    loop.run(config, tmp_path / "run")
    run = load_trained(tmp_path / "run")
    assert run.step == 0
    for path, x in flat(run.frozen["model"]).items():
        np.testing.assert_array_equal(x, base[1][path])
    for path, x in flat(run.params["lora"]).items():
        np.testing.assert_array_equal(x, adapter[1][f"lora/{path}"])


def test_a_run_starts_from_another(tmp_path):
    """Runs of no steps: the second draws with another seed and is then as the first."""
    convert = tool("convert")
    for name in ("kinema4d", "wristworld_geometry"):
        config = load_config(f"{REPO / 'configs' / name}.py")
        config.update(steps=0)
        loop.run(config, tmp_path / name)
        source, weights = str(tmp_path / name), str(tmp_path / f"{name}-weights")
        assert convert.main(["import", "--kind", "run", source, weights]) == 0
        config.update(seed=1)
        config.model.base = weights
        loop.run(config, tmp_path / f"{name}-second")
        first, second = (load_trained(tmp_path / f"{name}{x}") for x in ("", "-second"))
        jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


def test_the_wrist_s_video_model_as_a_file(tmp_path):
    """Of no steps: what is drawn. Pairs, zero at first, are merged."""
    config = load_config(f"{REPO / 'configs/wristworld_video.py'}")
    config.update(steps=0)
    config.lora.rank = 2
    loop.run(config, tmp_path / "run")
    made = run_checkpoint(tmp_path / "run")
    run = load_trained(tmp_path / "run")
    whole = lora.join(run.frozen["model"], run.params["added"])
    assert made.model == "wristworld" and made.leaves.keys() == flat(whole).keys()
    for path, leaf in flat(whole).items():
        np.testing.assert_array_equal(made.leaves[path], leaf)
    (tmp_path / "theirs").mkdir()
    export_kind("wristworld", made, tmp_path / "theirs")
    back = import_kind("wristworld", tmp_path / "theirs", made.config)
    assert set(back.leaves) == set(made.leaves)


def test_folders_that_do_not_fit(home, base, adapter, tmp_path):
    dit, leaves, folder = base
    heads = write(tmp_path / "a", "wan", dataclasses.replace(dit, heads=1), leaves)
    wide = leaves | {"dit/head/out/bias": np.zeros(3, "f4")}
    shape = write(tmp_path / "b", "wan", dit, wide)
    net = kinema4d.build(config_of(home)).net.config
    other = "pm" if net.variant == "act" else "act"

    def changed(**sizes) -> dict:
        config = dataclasses.replace(adapter[0], **sizes)
        name = tmp_path / "_".join(sizes)
        return {"adapter": write(name, "adapter", config, adapter[1])}

    given = {rank: drawn(kinema4d.build(config_of(home, rank))) for rank in (0, RANK)}
    for rank, model, said in (
        (RANK, {"base": heads}, "has heads=1, the config 2"),
        (RANK, {"base": str(tmp_path)}, "no imported checkpoint"),
        (RANK, {"base": adapter[2]}, "holds adapter, need wan or"),
        (RANK, {"adapter": folder}, "holds wan, need adapter"),
        (RANK, changed(rank=8), "has rank 8, the config 4"),
        (RANK, changed(scale=0.5), "has alpha / rank 0.5, the config 2.0"),
        (RANK, changed(variant=other), f"has variant {other}, the config {net.variant}"),
        (RANK, changed(layers=7), "has layers 7, the config"),
        (0, {"adapter": adapter[2]}, "needs lora.rank > 0"),
        (RANK, {"base": shape}, r"dit/head/out/bias is \[3\], need"),
    ):
        task, (params, frozen) = kinema4d.build(config_of(home, rank, **model)), given[rank]
        with pytest.raises(InputError, match=said) as caught:
            task.begin(params)
            task.load(frozen)
        assert "\n" not in str(caught.value)
