"""A draw of samples here and in PyTorch, at equal sizes, weights and noise, on a machine.

    python bench/sample.py [--repeats 5] [--sizes 3] [--cores 2] [--steps 4]

Euler steps of a Wan2.1 text-to-video transformer in float32, ours as one compiled program
beside diffusers' WanTransformer3DModel (SDPA) and its FlowMatchEulerDiscreteScheduler. The
samples must agree. bench/beside.py says how they are timed.
"""

import argparse
import os

from beside import Size, check_equal, ours, product, race, table, theirs

SIZES = (
    Size(width=256, heads=4, layers=4, side=16),
    Size(),
    Size(width=512, heads=8, layers=4, frames=2),
)
SHIFT = 3.0


def our_draw(size: Size, steps: int):
    import jax
    import jax.numpy as jnp

    from w4d_jax.sample.solver import euler, euler_schedule, integrate

    net, params, given = ours(size)
    schedule = euler_schedule(steps, SHIFT)

    @jax.jit
    def draw(params, given):
        def velocity(x, sigma, timestep):
            time = jnp.full(size.batch, timestep)
            return net.apply(params, x, time, given["text"])

        return integrate(velocity, given["x"], schedule, euler)

    params, given = jax.device_put((params, given))
    return lambda: float(jnp.abs(draw(params, given)).mean())


def their_draw(size: Size, steps: int, compiled: bool):
    import diffusers
    import torch

    net, given = theirs(size, compiled)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=SHIFT)

    @torch.inference_mode()
    def call() -> float:
        x = given["x"]
        scheduler.set_timesteps(steps)
        for time in scheduler.timesteps:
            out = net(x, time.expand(size.batch), given["text"], return_dict=False)[0]
            x = scheduler.step(out, time, x, return_dict=False)[0]
        return x.abs().mean().item()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="the first so many")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    args = parser.parse_args()
    for size in SIZES[: args.sizes]:
        sides = {
            "product": (product,),
            "ours": (our_draw, size, args.steps),
            "PyTorch, eager": (their_draw, size, args.steps, False),
        }
        if not args.no_compile:
            sides["PyTorch, compiled"] = (their_draw, size, args.steps, True)
        laps = race(sides, args.repeats, args.cores)
        check_equal(laps)
        flops = args.steps * size.forward.total
        print(f"\n{size}, {args.steps} steps")
        print(table(laps, flops, args.steps * size.batch * size.tokens), flush=True)


if __name__ == "__main__":
    main()
