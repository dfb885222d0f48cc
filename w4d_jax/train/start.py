"""What a run starts from: imported weights in place of drawn ones, streamed to where they
are to lie. tools/convert.py makes the folders."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from w4d_jax.nets.adapter import AdapterConfig, part
from w4d_jax.nets.checkpoint import RUNTIME, placed, read_checkpoint
from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.files import TORCH
from w4d_jax.nets.kinds import KINDS, import_kind
from w4d_jax.nets.kinema4d import ADDED, Kinema4DConfig
from w4d_jax.nets.lazy import Lazy
from w4d_jax.nets.weights import flat, tree
from w4d_jax.nets.wristworld import WristWorldConfig
from w4d_jax.train.lora import LoraConfig
from w4d_jax.types import InputError

MODELS = {
    "wan": DiTConfig,
    "4dnex": DiTConfig,
    "kinema4d": Kinema4DConfig,
    "wristworld": WristWorldConfig,
}
# Of no matter here: how a network computes, texts, and channels, which may become more.
FREE = (*RUNTIME, "text_dim", "in_channels")
PATCH = "dit/patch/kernel"


@dataclasses.dataclass(frozen=True)
class StartConfig:
    """Folders of imported checkpoints; "" leaves what is drawn.

    base: a Wan, or a whole Kinema4D. A Wan of fewer channels is widened by zeros, so that
    it starts as it was; only where all of it trains can it learn to see the others.
    adapter: 4DNeX's or Kinema4D's, for the pairs and the added modules.
    """

    base: str = ""
    adapter: str = ""

    def rest(self, net: Kinema4DConfig, model):
        """What does not train, drawn -> out of the base."""
        if not self.base or not model:
            return model
        leaves = base_leaves(self.base, net.dit, variant=net.variant)
        return replaced(model, leaves, f"model.base {self.base}")

    def params(self, net: Kinema4DConfig, lora: LoraConfig, params):
        """What trains, drawn -> out of the folders; what they lack of ADDED stays drawn."""
        base, name = {}, f"model.base {self.base}"
        if self.base:
            base = base_leaves(self.base, net.dit, not lora.rank, net.variant)
        if not lora.rank:
            if self.adapter:
                raise InputError(
                    f"model.adapter {self.adapter}: needs lora.rank > 0; to train all, "
                    "merge it into the base (tools/convert.py import --base)"
                )
            return replaced(params, base, name, ADDED) if base else params
        new = {"lora": params["lora"], "added": params["added"]}
        new["added"] = replaced(new["added"], base, name, ADDED)
        if self.adapter:
            leaves, name = adapter_leaves(self.adapter, net, lora), "model.adapter"
            added = part(leaves, "added/")
            new["lora"] = replaced(new["lora"], part(leaves, "lora/"), name)
            new["added"] = replaced(new["added"], added, name, ADDED)
        return new


def base_leaves(
    folder: str, dit: DiTConfig, widen: bool = False, variant: str = ""
) -> dict[str, Lazy]:
    """Those of an imported model around this transformer, nothing of them read yet.

    widen: one that takes fewer channels will do. variant: what a Kinema4D has to be.
    """
    found, name = read_checkpoint(folder, MODELS), f"model.base {folder}"
    is_ = getattr(found.config, "variant", variant)
    if is_ != variant:
        raise InputError(f"{name}: has variant {is_}, the config {variant}")
    have = getattr(found.config, "dit", found.config)
    for field in dataclasses.fields(DiTConfig):
        is_, need = getattr(have, field.name), getattr(dit, field.name)
        if field.name not in FREE and is_ != need:
            raise InputError(f"{name}: has {field.name}={is_}, the config {need}")
    missing = dit.in_channels - have.in_channels
    if missing < 0 or (missing and not widen):
        raise InputError(
            f"{name}: takes {have.in_channels} channels, the network {dit.in_channels}; "
            "fewer will do where all of it trains (lora.rank=0)"
        )
    leaves = dict(found.leaves)
    return leaves | {PATCH: _widened(leaves[PATCH], missing)}


def adapter_leaves(
    folder: str, net: Kinema4DConfig, lora: LoraConfig
) -> Mapping[str, Lazy]:
    """Those of an imported adapter, if it is of this network and these pairs."""
    found = read_checkpoint(folder, {"adapter": AdapterConfig})
    for what, is_, need in (
        ("layers", found.config.layers, net.dit.layers),
        ("rank", found.config.rank, lora.rank),
        ("alpha / rank", found.config.scale, lora.alpha / lora.rank),
        ("variant", found.config.variant or net.variant, net.variant),
    ):
        if is_ != need:
            raise InputError(f"model.adapter {folder}: has {what} {is_}, the config {need}")
    return found.leaves


def coder_leaves(path: str, kind: str, config) -> Mapping[str, Lazy]:
    """Those of a codec or an image encoder, nothing of them read yet. path: what
    tools/convert.py imports as `kind`, Wan2.1's own .pth, or what the tool has made of
    either.
    """
    if (Path(path) / "w4d.json").exists():
        found = read_checkpoint(path, {KINDS[kind].model: type(config)})
        _check_sizes(found.config, config, path)
        return found.leaves
    own = "-original" if Path(path).suffix in TORCH else ""
    return import_kind(kind + own, Path(path), config).leaves


def coder_weights(path: str, kind: str, config, drawn, name: str) -> Any:
    """`coder_leaves` as a tree in place of the drawn one, laid and typed alike."""
    wanted = {
        leaf: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        for leaf, x in flat(drawn).items()
    }
    try:
        return tree(placed(coder_leaves(path, kind, config), wanted, path))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _check_sizes(have, need, name) -> None:
    """InputError for the first size of two configs that differs."""
    for field in dataclasses.fields(need):
        is_, wanted = getattr(have, field.name), getattr(need, field.name)
        if field.name not in RUNTIME and is_ != wanted:
            raise InputError(f"{name}: has {field.name}={is_}, the config {wanted}")


def replaced(drawn, leaves: Mapping[str, Lazy], name: str, optional=()) -> Any:
    """A drawn tree with the leaves of a file in place of its own, laid and typed alike.

    The drawn leaves are freed one by one: never do two trees lie in memory. optional: the
    subtrees that the file may lack.
    """
    new = {}
    for path, old in flat(drawn).items():
        if path in leaves:
            wanted = jax.ShapeDtypeStruct(old.shape, old.dtype, sharding=old.sharding)
            old.delete()
            new |= placed({path: leaves[path]}, {path: wanted}, name)
        elif path.split("/")[0] in optional:
            new[path] = old
        else:
            raise InputError(f"{name}: has no {path}")
    return tree(new)


def _widened(kernel: Lazy, channels: int) -> Lazy:
    """A patch embedding [p,q,r,C,D] with zeros for as many channels more."""
    shape = (*kernel.shape[:3], kernel.shape[3] + channels, kernel.shape[4])
    pad = ((0, 0),) * 3 + ((0, channels), (0, 0))
    return Lazy(shape, kernel.dtype, lambda index: np.pad(np.asarray(kernel), pad)[index])
