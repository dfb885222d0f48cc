"""What of the network trains: all of it, or low-rank pairs beside a frozen base."""

import dataclasses

import jax
import jax.numpy as jnp

from w4d_jax.nets import lora
from w4d_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """rank 0 trains everything. Otherwise W + alpha / rank A B stands on some matrices: the
    pairs train, and so does what a method adds to its base."""

    rank: int = 0
    alpha: float = 32.0

    def __post_init__(self):
        if self.rank < 0:
            raise InputError(f"lora.rank={self.rank}: need 0 (full training) or more")

    def divide(self, key, params, targets: str, added: tuple[str, ...]):
        """A network's parameters -> (what trains, what does not). What trains is float32,
        whatever the network is in: small steps would be lost.

        targets: what the paths of the matrices with pairs match; added: subtrees that train
        in full.
        """
        if not self.rank:
            return params, {}

        def is_added(path):
            return any(f"{path}/".startswith(f"{tree}/") for tree in added)

        new, base = lora.split(params, is_added)
        new = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), new)
        pairs = lora.init(jax.random.fold_in(key, 1), base, self.rank, targets)
        return {"lora": pairs, "added": new}, base

    def variables(self, params, base):
        """The inverse, as flax variables; pairs stay apart, so that the gradient of a full
        matrix is never formed."""
        if not self.rank:
            return {"params": params}
        pairs = lora.scaled(params["lora"], self.alpha / self.rank)
        return {"params": lora.join(base, params["added"]), "lora": pairs}
