"""A run of Kinema4D as a checkpoint, for tools/convert.py to write in others' forms."""

from pathlib import Path

import numpy as np

from w4d_jax.nets.adapter import AdapterConfig
from w4d_jax.nets.checkpoint import Checkpoint
from w4d_jax.nets.lazy import held
from w4d_jax.nets.weights import flat
from w4d_jax.train import kinema4d
from w4d_jax.train.trained import load_averaged
from w4d_jax.types import InputError


def run_checkpoint(workdir: Path) -> Checkpoint:
    """The averaged parameters of its newest checkpoint: an adapter where low-rank pairs
    trained, else the whole network (without Wan's text embedder, which it does not use)."""
    found = load_averaged(workdir)
    if found.config.task != "kinema4d":
        raise InputError(f"workdir {workdir}: a run of {found.config.task}, need kinema4d")
    task = kinema4d.build(found.config)
    net, lora = task.net.config, task.lora
    leaves = {path: held(np.asarray(leaf)) for path, leaf in flat(found.params).items()}
    if not lora.rank:
        return Checkpoint("kinema4d", net, leaves)
    config = AdapterConfig(
        layers=net.dit.layers,
        rank=lora.rank,
        scale=lora.alpha / lora.rank,
        variant=net.variant,
        mask_channels=net.mask_channels,
        robot_width=net.robot_width,
        robot_patch=net.robot_patch,
        robot_grid=net.robot_grid,
    )
    return Checkpoint("adapter", config, leaves)
