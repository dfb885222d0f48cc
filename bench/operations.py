"""Where our training step's time goes on a CPU, by kind of operation.

    JAX_PLATFORMS=cpu taskset -c 0 python bench/operations.py [--size 3]

Loss and gradient at one of bench/train_step.py's sizes, one call under JAX's profiler; on
one core, so that what runs side by side is not counted twice. An operation of the compiled
program is of the kind that its source names: products of the forward pass, of the gradient
by inputs and by weights, sums over tokens, and what only moves numbers.
"""

import argparse
import collections
import gzip
import json
import re
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
from beside import ours
from train_step import SIZES

MOVES = ("dynamic_slice", "dynamic_update_slice", "copy", "broadcast_in_dim", "")


def kind(name: str, source: str) -> str:
    """Of an operation by its name in the program and its place in the source."""
    last, backward = source.split("/")[-1], "transpose(" in source
    if "/checkpoint/" in source or "closed_call/while" in source:
        return "attention" + (", backward" if backward else "")
    if last == "transpose" and name.startswith("dot"):
        return "products, gradient by weights"
    if last.startswith("dot_general"):
        return "products" + (", gradient by inputs" if backward else "")
    if last.startswith("reduce"):
        return "sums over tokens" if backward else "sums over channels"
    if last in MOVES or name.startswith("copy"):
        return "slices, copies, zeros"
    return "the rest, by element"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=3, help="which of train_step's, from 1")
    size = SIZES[parser.parse_args().size - 1]
    net, params, given = ours(size)

    def loss(params):
        out = net.apply(params, given["x"], given["time"], given["text"])
        return jnp.square(out - given["target"]).mean()

    step = jax.jit(jax.grad(loss)).lower(params).compile()
    sources = {}
    for line in step.as_text().splitlines():
        if found := re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = ", line):
            source = re.search(r'op_name="([^"]*)"', line)
            sources[found[1]] = source[1] if source else ""
    jax.block_until_ready(step(params))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(step(params))
        (file,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    took = collections.Counter()
    for event in events:
        if "hlo_op" in event.get("args", {}) and not event["name"].startswith("while"):
            took[kind(event["name"], sources.get(event["name"], ""))] += event["dur"] / 1e3
    print(f"{size}: {sum(took.values()):,.0f} ms\n\n| kind | ms |\n|---|---|")
    for name, ms in took.most_common():
        print(f"| {name} | {ms:,.0f} |")


if __name__ == "__main__":
    main()
