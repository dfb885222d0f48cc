"""Times attention and the video transformer on this machine.

python bench/network.py      # one line a size; run it on a quiet machine

Wall time is the best of five calls, CPU time (all threads) their mean. FLOP/s counts the
products of a forward pass three times for a training step; recomputation is not counted.
"""

import os
import time

import jax
import jax.numpy as jnp

from w4d_jax.nets.attend import attend
from w4d_jax.nets.dit import DiT, DiTConfig

ATTENTION = [(8, 384, 4, 32), (8, 512, 6, 32), (2, 1024, 4, 48)]  # B, L, N, K
TRANSFORMER = [(128, 4, 4, (4, 8, 12)), (192, 6, 4, (4, 8, 16)), (192, 4, 6, (4, 8, 24))]


def main() -> None:
    for shape in ATTENTION:
        keys = jax.random.split(jax.random.key(0), 3)
        qkv = [jax.random.normal(key, shape) for key in keys]
        for name, f in (("attend", attend), ("jax.nn", jax.nn.dot_product_attention)):
            step = jax.jit(jax.grad(lambda *a, f=f: (f(*a) ** 2).sum(), (0, 1, 2)))
            wall, cpu = clock(lambda step=step, qkv=qkv: step(*qkv))
            print(f"{name} {shape} gradient: {wall:.1f} ms wall, {cpu:.1f} ms CPU")
    for width, heads, layers, grid in TRANSFORMER:
        for remat in ("none", "attention"):
            train(width, heads, layers, grid, remat)


def train(width, heads, layers, grid, remat, batch=8, tokens=32) -> None:
    config = DiTConfig(in_channels=36, width=width, heads=heads, layers=layers,
                       ffn=4 * width, patch=(1, 1, 1), remat=remat)  # fmt: skip
    net = DiT(config)
    x = jax.random.normal(jax.random.key(1), (batch, *grid, 36))
    context = jax.random.normal(jax.random.key(2), (batch, tokens, width))
    inputs = x, jnp.full(batch, 500.0), context
    params = jax.jit(net.init)(jax.random.key(0), *inputs)
    step = jax.jit(jax.grad(lambda p: (net.apply(p, *inputs) ** 2).mean()))
    start = time.perf_counter()
    step = step.lower(params).compile()
    compile_seconds = time.perf_counter() - start
    wall, cpu = clock(lambda: step(params))
    L, D = grid[0] * grid[1] * grid[2], width
    linear = (8 + 4 + 16) * L * D * D + 4 * tokens * D * D  # cross keys, values
    block = linear + 4 * L * (L + tokens) * D
    flops = 3 * batch * layers * block
    memory = step.memory_analysis().temp_size_in_bytes / 2**20
    print(
        f"width {D}, {layers} layers, {batch} x {L} tokens, remat {remat}: "
        f"{wall:.0f} ms wall, {cpu:.0f} ms CPU, {flops / wall / 1e6:.0f} GFLOP/s, "
        f"{memory:.0f} MiB, compiled in {compile_seconds:.1f} s"
    )


def clock(call, repeats: int = 5) -> tuple[float, float]:
    """(best wall time, mean CPU time of all threads) of a call, in ms."""
    jax.block_until_ready(call())
    walls = []
    before = os.times()
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        walls.append(time.perf_counter() - start)
    after = os.times()
    cpu = after.user - before.user + after.system - before.system
    return 1e3 * min(walls), 1e3 * cpu / repeats


if __name__ == "__main__":
    main()
