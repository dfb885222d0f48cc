"""Every preset is a run that could start, and reads back from its config.json as itself."""

import json
import re

import jax
import pytest
from runs import REPO

from w4d_jax.train.config import filled, load_config, override
from w4d_jax.train.optim import OptimizerConfig
from w4d_jax.train.task import build
from w4d_jax.train.workdir import claim, read_config
from w4d_jax.types import InputError

FILE = str(REPO / "configs/kinema4d.py")


def presets():
    """From the error that names them, so that none is forgotten here."""
    with pytest.raises(InputError, match="preset 'no such'") as caught:
        load_config(f"{FILE}:no such")
    return re.search("one of (.*)$", str(caught.value))[1].split(", ")


@pytest.mark.parametrize("preset", ["", *presets()])
def test_preset(preset, tmp_path):
    """It builds, it has what every config has, and config.json holds all of it."""
    config = load_config(f"{FILE}:{preset}")
    shared = {"steps", "seed", "batch", "log_every", "checkpoint_every", "mesh", "data"}
    assert shared | {"model", "optimizer"} <= set(config)
    filled(OptimizerConfig, config.optimizer, "optimizer")
    task = build(config)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    assert len(jax.tree.leaves(shapes)) > 40

    claim(tmp_path / "run", config)
    again = read_config(tmp_path / "run")
    assert jax.eval_shape(build(again).init, jax.random.key(0)) == shapes
    assert json.loads(again.to_json()) == json.loads(config.to_json())
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["config.json"]


def test_no_preset_is_tiny():
    assert load_config(FILE).to_json() == load_config(f"{FILE}:tiny").to_json()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("steps", "5", 5),
        ("optimizer.lr", "2", 2.0),
        ("optimizer.lr", "3e-4", 3e-4),
        ("data.view", "side", "side"),
        ("model.dit.patch", "(1, 1, 1)", (1, 1, 1)),
    ],
)
def test_override(key, text, value):
    config = load_config(FILE)
    override(config, key, text)
    for part in key.split("."):
        config = config[part]
    assert config == value and type(config) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("stepz", "5", "--config.stepz: no such key 'stepz'; there is accumulate, batch, "),
        ("model.dit.size", "5", "no such key 'size'; there is .*layers"),
        ("steps.more", "5", "no such key 'more'; there is nothing below"),
        ("steps", "many", "--config.steps=many: need int, as in "),
        ("steps", "5.5", "--config.steps=5.5: need int, as in "),
        ("optimizer.lr", "True", "--config.optimizer.lr=True: need float, as in "),
        ("model", "5", "--config.model: is a group; set one of base, crossed, "),
        ("", "5", "no such key ''"),
    ],
)
def test_override_refuses(key, text, said):
    with pytest.raises(InputError, match=said) as caught:
        override(load_config(FILE), key, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("group", "key", "value", "said"),
    [
        ("flow", "prediction", "noise", "config.flow.prediction='noise': need one of vel"),
        ("condition", "fill", "blue", "config.condition.fill='blue': need one of grey"),
        ("sampler", "solver", "heun", "config.sampler.solver='heun': need one of euler"),
        ("sampler", "stepz", 3, "config.sampler: no such key stepz, it has solver, "),
        ("model", "depth", 3, "config.model: no such key depth, it has "),
        ("model", "variant", "rgb", "variant='rgb': need pm or act"),
    ],
)
def test_a_config_file_with_a_mistake(group, key, value, said):
    config = load_config(FILE)
    with config.unlocked():
        config[group][key] = value
    with pytest.raises(InputError, match=said) as caught:
        build(config)
    assert "\n" not in str(caught.value)


def test_a_wrong_optimizer():
    config = load_config(FILE)
    config.optimizer.decay = "step"
    with pytest.raises(
        InputError, match=r"optimizer\.decay='step': need one of constant, co"
    ):
        filled(OptimizerConfig, config.optimizer, "optimizer")
    del config.unlock().optimizer["lr"]
    with pytest.raises(InputError, match=r"config\.optimizer: has no lr"):
        filled(OptimizerConfig, config.optimizer, "optimizer")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"steps": 1}', "\xff"])
def test_a_damaged_config_json(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"config\.json") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)
