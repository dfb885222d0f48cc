"""A training step here and in PyTorch, at equal sizes, weights and inputs, on this machine.

    python bench/train_step.py [--repeats 5] [--sizes 3] [--cores 2] \\
        [--scaling] [--no-compile]

Forward, backward and AdamW of a Wan2.1 text-to-video transformer in float32: ours without
and with rematerialisation, and diffusers' WanTransformer3DModel (SDPA, fused AdamW), eager
and by torch.compile. The losses of the first step must agree. Tokens a second; MFU by the
project's formula (nothing computed twice counts), by CPU time, over what a large matrix
product reaches; peak memory; seconds of compiling and the first step. bench/beside.py says
how they are timed. --scaling: ours and eager PyTorch by tokens of a frame, by frames, by
batch.
"""

import argparse
import os

from beside import Size, check_equal, ours, product, race, table, theirs

SIZES = (
    Size(width=256, heads=4, layers=4, side=16),
    Size(),
    Size(width=512, heads=8, layers=4, frames=2),
)
SCALING = {
    "side": [Size(width=256, heads=4, layers=4, side=n) for n in (16, 32, 48)],
    "frames": [Size(width=256, heads=4, layers=4, side=16, frames=n) for n in (4, 8, 16)],
    "batch": [Size(width=256, heads=4, layers=4, side=16, batch=n) for n in (1, 2, 4)],
}
AdamW = {"lr": 1e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 1e-4}


def our_step(size: Size, remat: str):
    import jax
    import jax.numpy as jnp
    import optax

    net, params, given = ours(size, remat)
    b1, b2 = AdamW["betas"]
    tx = optax.adamw(AdamW["lr"], b1, b2, AdamW["eps"], weight_decay=AdamW["weight_decay"])

    def update(params, state, given):
        def loss(params):
            out = net.apply(params, given["x"], given["time"], given["text"])
            return jnp.square(out - given["target"]).mean()

        value, slope = jax.value_and_grad(loss)(params)
        updates, state = tx.update(slope, state, params)
        return optax.apply_updates(params, updates), state, value

    update = jax.jit(update, donate_argnums=(0, 1))
    given = jax.device_put(given)
    held = [jax.device_put(params), jax.jit(tx.init)(params)]

    def step() -> float:
        *held[:], value = update(*held, given)
        jax.block_until_ready(held)
        return float(value)

    return step


def their_step(size: Size, compiled: bool):
    import torch

    net, given = theirs(size, compiled)
    tx = torch.optim.AdamW(net.parameters(), **AdamW, fused=True)

    def step() -> float:
        tx.zero_grad(set_to_none=True)
        out = net(given["x"], given["time"], given["text"], return_dict=False)[0]
        loss = (out - given["target"]).square().mean()
        loss.backward()
        tx.step()
        return loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="the first so many")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    args = parser.parse_args()
    if args.scaling:
        scaling(args.repeats, args.cores)
        return
    for size in SIZES[: args.sizes]:
        sides = {
            "product": (product,),
            "ours": (our_step, size, "none"),
            "ours, remat attention": (our_step, size, "attention"),
            "PyTorch, eager": (their_step, size, False),
        }
        if not args.no_compile:
            sides["PyTorch, compiled"] = (their_step, size, True)
        laps = race(sides, args.repeats, args.cores)
        check_equal(laps)
        print(f"\n{size}")
        print(table(laps, size.forward.step, size.batch * size.tokens), flush=True)


def scaling(repeats: int, cores: int) -> None:
    print("\n| | tokens | GFLOP | ours, CPU ms | PyTorch, CPU ms |\n|---|---|---|---|---|")
    for axis, sizes in SCALING.items():
        for size in sizes:
            sides = {"ours": (our_step, size, "none"), "theirs": (their_step, size, False)}
            laps = race(sides, repeats, cores)
            times = " | ".join(f"{1e3 * lap.cpu:,.0f}" for lap in laps.values())
            name = f"{axis} {getattr(size, axis)}"
            tokens = size.batch * size.tokens
            print(
                f"| {name} | {tokens} | {size.forward.step / 1e9:.0f} | {times} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
