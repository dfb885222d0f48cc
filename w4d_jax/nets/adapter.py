"""What Kinema4D and 4DNeX publish: low-rank pairs for Wan, and weights beside them.

    pytorch_lora_weights.safetensors   pairs A, B in PEFT's names, without their alpha
    added_weights.safetensors          Kinema4D's own modules (nets/kinema4d.py)
    learnable_domain_embeddings.pt     4DNeX: the domain embedding, a bare tensor

Kept apart they are an adapter: leaves "lora/.../a", "lora/.../b" and "added/...". Merged
into the Wan that they stand on they are a model: W + scale A B in place of W.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from w4d_jax.nets.checkpoint import Checkpoint, check_shapes, check_types
from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.files import open_tensors, write_safetensors
from w4d_jax.nets.kinema4d import Kinema4DConfig
from w4d_jax.nets.lazy import Lazy, stack
from w4d_jax.nets.models import MODELS
from w4d_jax.nets.torch_zip import write_torch
from w4d_jax.nets.wan_names import kinema4d_added, lora
from w4d_jax.nets.weights import ours, theirs
from w4d_jax.types import InputError

PAIRS = "pytorch_lora_weights.safetensors"
ADDED = "added_weights.safetensors"
DOMAIN = "learnable_domain_embeddings.pt"
SCALE = 0.5  # alpha / rank of both; their files do not say it
FIRST = r"(.*)blocks\.0\.attn1\.to_q\.lora_A\.weight"  # after what prefix the names begin


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """variant "pm" or "act": Kinema4D's, with the sizes of its robot branch; "": 4DNeX's,
    which has none."""

    layers: int
    rank: int
    scale: float = SCALE
    variant: str = ""
    mask_channels: int = 4
    robot_width: int = 128
    robot_patch: int = 15
    robot_grid: tuple[int, int, int] = (13, 4, 6)

    def robot(self) -> dict:
        """Those of `Kinema4DConfig`."""
        names = ("variant", "mask_channels", "robot_width", "robot_patch", "robot_grid")
        return {name: getattr(self, name) for name in names}


def import_adapter(folder: Path, scale: float = SCALE) -> Checkpoint:
    """Of a folder with PAIRS and either ADDED or DOMAIN."""
    pairs = open_tensors(folder / PAIRS)
    prefixes = [m[1] for m in (re.fullmatch(FIRST, name) for name in pairs) if m]
    if len(prefixes) != 1:
        raise InputError(f"{folder / PAIRS}: holds no pair for blocks.0.attn1.to_q")
    layers = 1 + max(map(int, re.findall(r"blocks\.(\d+)\.", " ".join(pairs))))
    table = lora(DiTConfig(layers=layers), prefixes[0])
    found = _ours(folder / PAIRS, table, pairs)
    rank = _rank(folder / PAIRS, found)
    leaves = {f"lora/{path}": leaf for path, leaf in found.items()}
    if (folder / ADDED).exists():
        added, sizes = import_added(folder)
    else:
        added, sizes = import_domain(folder), {}
    leaves |= {f"added/{path}": leaf for path, leaf in added.items()}
    return Checkpoint("adapter", AdapterConfig(layers, rank, scale, **sizes), leaves)


def import_added(folder: Path) -> tuple[dict[str, Lazy], dict]:
    """Our leaves of ADDED, and the sizes that their shapes tell."""
    tensors = open_tensors(folder / ADDED)
    variant = "act" if "arm_domain_emb" in tensors else "pm"
    leaves = _ours(folder / ADDED, kinema4d_added(variant), tensors)
    *_, side, known, width = leaves["robot_tokens/patch/kernel"].shape
    latent = leaves["robot_latent/kernel"].shape[0]
    sizes = {
        "variant": variant,
        "mask_channels": known - latent,
        "robot_width": width,
        "robot_patch": side,
        "robot_grid": leaves["robot_tokens/position"].shape[:3],
    }
    # The smallest network that they could stand in.
    dit = DiTConfig(
        in_channels=known + latent,
        out_channels=latent,
        width=leaves["domain"].shape[-1],
        heads=1,
        layers=1,
        ffn=1,
    )
    shapes = MODELS["kinema4d"].shapes(Kinema4DConfig(dit, **sizes))
    shapes = {path: shapes[path] for path in shapes if path in leaves}
    check_shapes(leaves, shapes, folder / ADDED)
    return leaves, sizes


def import_domain(folder: Path) -> dict[str, Lazy]:
    """Our leaf of DOMAIN."""
    tensors = open_tensors(folder / DOMAIN)
    if list(tensors) != [""] or len(tensors[""].shape) != 2:
        raise InputError(f"{folder / DOMAIN}: need one bare tensor of 2 x width")
    check_types(tensors, folder / DOMAIN)
    return {"domain": tensors[""]}


def export_adapter(folder: Path, adapter: Checkpoint) -> None:
    """Writes PAIRS and ADDED, or PAIRS and DOMAIN, into an existing folder."""
    table = lora(DiTConfig(layers=adapter.config.layers))
    pairs = theirs(table, part(adapter.leaves, "lora/"))
    write_safetensors(folder / PAIRS, pairs)
    export_added(folder, part(adapter.leaves, "added/"), adapter.config.variant)


def export_added(folder: Path, added: Mapping[str, Lazy], variant: str) -> None:
    """Writes ADDED or, for the variant "", DOMAIN."""
    if variant:
        write_safetensors(folder / ADDED, theirs(kinema4d_added(variant), added))
    else:
        write_torch(folder / DOMAIN, {"": added["domain"]})


def merged(base: Checkpoint, adapter: Checkpoint) -> Checkpoint:
    """Wan with the pairs in its matrices, and what is added: Kinema4D or 4DNeX as a model.
    The base's types stay; the sum is formed in float32, layer by layer."""
    config, dit = adapter.config, base.config
    if config.layers != dit.layers:
        raise InputError(f"adapter of {config.layers} layers, base of {dit.layers}")
    pairs, leaves = part(adapter.leaves, "lora/"), dict(base.leaves)
    for path in sorted({name.rsplit("/", 1)[0] for name in pairs}):
        name = f"{path}/kernel"
        a, b = pairs[f"{path}/a"], pairs[f"{path}/b"]
        leaves[name] = _sum(name, leaves[name], a, b, config.scale)
    leaves |= part(adapter.leaves, "added/")
    if config.variant:
        return Checkpoint("kinema4d", Kinema4DConfig(dit, **config.robot()), leaves)
    return Checkpoint("4dnex", dit, leaves)


def part(leaves: Mapping[str, Lazy], prefix: str) -> dict[str, Lazy]:
    """The leaves under a prefix, without it."""
    return {
        path.removeprefix(prefix): leaf
        for path, leaf in leaves.items()
        if path.startswith(prefix)
    }


def _sum(name: str, kernel: Lazy, a: Lazy, b: Lazy, scale: float) -> Lazy:
    """W + scale A B of every layer: [I,in,out], [I,in,R], [I,R,out]."""
    layers, *shape = kernel.shape
    if (a.shape[1], b.shape[2]) != tuple(shape):
        raise InputError(
            f"adapter: {name} stands on a matrix of {a.shape[1]} x {b.shape[2]}, the base "
            f"has {shape[0]} x {shape[1]}; is it another model's?"
        )

    def layer(i: int) -> np.ndarray:
        product = a[i].astype(np.float32) @ b[i].astype(np.float32)
        return (kernel[i].astype(np.float32) + scale * product).astype(kernel.dtype)

    return stack(layers, tuple(shape), kernel.dtype, layer)


def _ours(path: Path, table, tensors: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """`weights.ours`; an error names the file."""
    try:
        return ours(table, tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _rank(path: Path, leaves: Mapping[str, Lazy]) -> int:
    """The one rank of all pairs."""
    check_types(leaves, path)
    flat = [name for name, leaf in leaves.items() if len(leaf.shape) != 3]
    if flat:
        raise InputError(f"{path}: {flat[0]} is no matrix")
    ranks = {
        name: leaf.shape[2] if name.endswith("/a") else leaf.shape[1]
        for name, leaf in leaves.items()
    }
    first, *_ = ranks
    odd = [name for name, rank in ranks.items() if rank != ranks[first]]
    if odd:
        raise InputError(
            f"{path}: {first} has rank {ranks[first]}, {odd[0]} rank {ranks[odd[0]]}; "
            "need one rank for all"
        )
    return ranks[first]
