"""A run as a checkpoint, for tools/convert.py to write in others' forms."""

from pathlib import Path
from typing import Any

import numpy as np

from w4d_jax.nets import lora
from w4d_jax.nets.adapter import AdapterConfig
from w4d_jax.nets.checkpoint import Checkpoint
from w4d_jax.nets.lazy import Lazy, held
from w4d_jax.nets.weights import flat
from w4d_jax.train import geometry, kinema4d, wristworld
from w4d_jax.train.trained import load_averaged, load_trained
from w4d_jax.train.workdir import read_config
from w4d_jax.types import InputError


def run_checkpoint(workdir: Path) -> Checkpoint:
    """The averaged parameters of a run's newest checkpoint."""
    makers = {
        "kinema4d": _kinema4d,
        "wristworld_geometry": _geometry,
        "wristworld_video": _wristworld,
    }
    task = read_config(workdir).task
    if task not in makers:
        raise InputError(f"workdir {workdir}: a run of {task}, need {', '.join(makers)}")
    return makers[task](workdir)


def _kinema4d(workdir: Path) -> Checkpoint:
    """An adapter where low-rank pairs trained, else the whole network (without Wan's text
    embedder, which it does not use)."""
    run = load_averaged(workdir)
    task = kinema4d.build(run.config)
    net, pairs = task.net.config, task.lora
    if not pairs.rank:
        return Checkpoint("kinema4d", net, _leaves(run.params))
    config = AdapterConfig(
        layers=net.dit.layers,
        rank=pairs.rank,
        scale=pairs.alpha / pairs.rank,
        variant=net.variant,
        mask_channels=net.mask_channels,
        robot_width=net.robot_width,
        robot_patch=net.robot_patch,
        robot_grid=net.robot_grid,
    )
    return Checkpoint("adapter", config, _leaves(run.params))


def _geometry(workdir: Path) -> Checkpoint:
    """The whole network, what did not train as well."""
    run = load_trained(workdir)
    whole = lora.join(run.frozen["model"], run.params)
    return Checkpoint("vggt", geometry.build(run.config).net.config, _leaves(whole))


def _wristworld(workdir: Path) -> Checkpoint:
    """The whole network, low-rank pairs merged into it: its files know no others."""
    run = load_trained(workdir)
    task = wristworld.build(run.config)
    params, pairs = run.params, task.lora
    if pairs.rank:
        whole = lora.join(run.frozen["model"], params["added"])
        params = lora.merge(whole, params["lora"], pairs.alpha / pairs.rank)
    return Checkpoint("wristworld", task.net.config, _leaves(params))


def _leaves(params: Any) -> dict[str, Lazy]:
    return {path: held(np.asarray(leaf)) for path, leaf in flat(params).items()}
