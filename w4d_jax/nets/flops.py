"""Floating-point operations of the networks, two a multiply-add.

Products alone are counted, and each once: norms, softmax and rotations are left out, and so
is what is computed again to save memory. The share of a machine's peak that this makes is
what is known as MFU.
"""

import math
from typing import NamedTuple

from jax.extend.core import jaxprs_in_params

from w4d_jax.nets.dit import DiTConfig


class Forward(NamedTuple):
    """One example's forward pass through a transformer."""

    linear: float  # products with matrices of parameters
    attention: float  # products of queries, keys, weights and values
    pairs: float = 0.0  # products with low-rank pairs

    @property
    def total(self) -> float:
        return sum(self)

    @property
    def step(self) -> float:
        """With the backward pass. A product has two gradients; of a matrix that does not
        train, where pairs do instead, only the one that goes on."""
        return (2 if self.pairs else 3) * self.linear + 3 * (self.attention + self.pairs)


def transformer(
    config: DiTConfig,
    tokens: int,
    context: int,
    image: int = 0,
    rank: int = 0,
    ffn_rank: int = 0,
) -> Forward:
    """`tokens` L of the video look at themselves, at `context` S and at `image` I tokens.

    rank: of pairs beside the q, k, v, o of both attentions; ffn_rank: of those beside the
    feed-forward's two matrices; 0 for none.
    """
    L, S, D, F = tokens, context + image, config.width, config.ffn
    patch = math.prod(config.patch)
    ends = patch * (config.in_channels + config.out_channels) * D
    time = config.frequencies * D + D * D + 6 * D * D
    clip = (config.image_dim + D) * config.image_dim * image
    # Rows of q, k, v, o: all tokens in self-attention; q and o alone in the other.
    block = (4 + 2) * L * D * D + 2 * L * D * F + 2 * S * D * D
    pairs = ((4 + 2) * L + 2 * context) * 2 * D * rank + 2 * L * (D + F) * ffn_rank
    return Forward(
        linear=2.0 * (config.layers * block + L * ends + time + clip),
        attention=2.0 * config.layers * 2 * L * (L + S) * D,
        pairs=2.0 * config.layers * pairs,
    )


def counted(jaxpr) -> float:
    """Of all products and convolutions in a program, loops as often as they run."""
    total = 0.0
    for equation in jaxpr.eqns:
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += _own(equation)
        total += times * sum(map(counted, jaxprs_in_params(equation.params)))
    return total


def _own(equation) -> float:
    if equation.primitive.name not in ("dot_general", "conv_general_dilated"):
        return 0.0
    out = math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * out * math.prod(shape[i] for i in contracted)
    kernel = equation.invars[1].aval.shape
    channels = equation.params["dimension_numbers"].rhs_spec[0]
    return 2.0 * out * math.prod(kernel) / kernel[channels]
