"""Our numbers beside the reference's: one module per golden file, and this list of them.

`checks(folder)` of a module reads its file in that folder, takes every size from the file
itself, and yields one `Check` after the other.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from w4d_jax.parity import (
    clip_vision,
    condition,
    kinema4d,
    lora,
    losses,
    masks,
    pose,
    scheduler,
    spc,
    stage2,
    umt5,
    vggt,
    wan,
    wan_vae,
)
from w4d_jax.parity.check import Check

CHECKS: dict[str, Callable[[Path], Iterator[Check]]] = {
    "clip_vision": clip_vision.checks,
    "condition": condition.checks,
    # Whatever the backward pass keeps, the gradients are the same.
    "kinema4d_act": partial(kinema4d.checks, name="kinema4d_act"),
    "kinema4d_pm": partial(kinema4d.checks, name="kinema4d_pm", remat="attention"),
    "lora": lora.checks,
    "losses": losses.checks,
    "masks": masks.checks,
    "pose": pose.checks,
    "scheduler": scheduler.checks,
    "spc": spc.checks,
    "stage2": stage2.checks,
    "umt5": umt5.checks,
    "vggt": vggt.checks,
    "wan_i2v": partial(wan.checks, name="wan_i2v"),
    "wan_t2v": partial(wan.checks, name="wan_t2v"),
    "wan_vae": wan_vae.checks,
}
