"""Low-rank adaptation as algebra on parameter trees: W + s A B, without knowing any model.

Kernels are [..., in, out], so a pair is a f[..., in, R], b f[..., R, out]. A tree of pairs
mirrors the parameters: `params[...]["q"]["kernel"]` is adapted by `pairs[...]["q"]`.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = dict[str, Any]


def init(key, params: Tree, rank: int, targets: str, dtype: str = "float32") -> Tree:
    """Pairs for every module whose path matches `targets`: a uniform in +-1/sqrt(in), b
    zero, so that the adapted model starts as the given one."""
    pairs: Tree = {}
    for path, kernel in _paths(params):
        *module, leaf = path
        if leaf != "kernel" or not re.fullmatch(targets, "/".join(module)):
            continue
        *stack, fan_in, fan_out = kernel.shape
        key, draw = jax.random.split(key)
        bound = 1 / math.sqrt(fan_in)
        a = jax.random.uniform(draw, (*stack, fan_in, rank), dtype, -bound, bound)
        _put(pairs, (*module, "a"), a)
        _put(pairs, (*module, "b"), jnp.zeros((*stack, rank, fan_out), dtype))
    return pairs


def scaled(pairs: Tree, scale: float) -> Tree:
    """s A B as a tree of pairs: the `lora` collection of `model.apply`, which keeps the
    adapter apart so that no gradient of a full matrix is ever formed."""
    return _map(lambda pair: {"a": pair["a"], "b": scale * pair["b"]}, pairs)


def merge(params: Tree, pairs: Tree, scale: float) -> Tree:
    """Parameters with W + s A B in place of W; a negative scale takes them out again."""
    merged = dict(params)
    for name, pair in pairs.items():
        if "a" in pair and not isinstance(pair["a"], dict):
            kernel = params[name]["kernel"]
            product = jnp.matmul(
                pair["a"].astype(jnp.float32),
                pair["b"].astype(jnp.float32),
                precision="highest",
            )
            kernel = (kernel.astype(jnp.float32) + scale * product).astype(kernel.dtype)
            merged[name] = {**params[name], "kernel": kernel}
        else:
            merged[name] = merge(params[name], pair, scale)
    return merged


def split(params: Tree, keep: Callable[[str], bool]) -> tuple[Tree, Tree]:
    """(leaves whose path "a/b/c" satisfies `keep`, the others): what trains, what rests."""
    chosen: Tree = {}
    rest: Tree = {}
    for path, leaf in _paths(params):
        _put(chosen if keep("/".join(path)) else rest, path, leaf)
    return chosen, rest


def join(first: Tree, second: Tree) -> Tree:
    """The inverse of `split`."""
    tree = dict(first)
    for name, value in second.items():
        tree[name] = join(first[name], value) if name in first else value
    return tree


def _paths(tree: Tree, path: tuple[str, ...] = ()):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _paths(value, (*path, name))
        else:
            yield (*path, name), value


def _put(tree: Tree, path: tuple[str, ...], leaf) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf


def _map(change: Callable, pairs: Tree) -> Tree:
    if "a" in pairs and not isinstance(pairs["a"], dict):
        return change(pairs)
    return {name: _map(change, value) for name, value in pairs.items()}
