"""Simulated episodes per second, and how often each script succeeds.

python bench/sim.py [--episodes 100]
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from w4d_jax.data.sim import SimSource, script, source, world


def rate(sim: SimSource, first: int, episodes: int, threads: int) -> float:
    """Episodes a second, every one new."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(sim.__getitem__, range(first, first + episodes)):
            pass
    return episodes / (time.perf_counter() - start)


def success(task: str, near_miss: bool, episodes: int) -> float:
    """The share that physics calls a success."""
    done = 0
    for i in range(episodes):
        rng = np.random.default_rng((i, near_miss))
        blocks, job, path = script.sample(rng, (task,), float(near_miss))
        motion = world.roll(blocks, source.command(source.arm(), path))
        done += script.succeeded(job, motion.objects)
    return done / episodes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=100)
    episodes = parser.parse_args().episodes

    start = time.perf_counter()
    sim = SimSource(0, 1 << 20)
    _ = sim[0]
    print(f"first episode, compiling: {time.perf_counter() - start:.1f} s")
    print(f"{sim.frames} frames of {sim.height}x{sim.width}, views {', '.join(sim.views)}")
    for threads in (1, 2):
        speed = rate(sim, threads * episodes, episodes, threads)
        print(f"{threads} thread{'s' * (threads > 1)}: {speed:.1f} episodes/s")
    one = SimSource(0, 1 << 20, views=("front",))
    print(f"one view, 1 thread: {rate(one, 3 * episodes, episodes, 1):.1f} episodes/s")
    for task in script.TASKS:
        good, miss = (success(task, near_miss, episodes) for near_miss in (False, True))
        print(f"{task}: {good:.0%} of scripts succeed, {miss:.0%} of near-misses")


if __name__ == "__main__":
    main()
