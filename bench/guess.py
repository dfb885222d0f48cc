"""How far the stand-ins for the unknown are from what happens, before any network.

    python bench/guess.py [--clips 24]

Root mean squared error of each choice of `condition.fill` and `condition.geometry`, RGB on
[-1, 1] and pointmap normalised, over simulated clips: what is left for a network to learn,
and the size to give `condition.rgb_std` and `condition.pointmap_std`.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from configs.kinema4d import get_config
from w4d_jax.data.pipeline import sample
from w4d_jax.data.sim import SimSource
from w4d_jax.kin.control import Normaliser, scene_pointmap
from w4d_jax.train.kinema4d import build


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=24)
    clips = parser.parse_args().clips
    config = get_config()
    size = {key: config.data[key] for key in ("frames", "height", "width")}
    source = SimSource(0, clips, views=("front",), **size)
    items = [sample(source[i], "front", **size) for i in range(clips)]
    batch = {key: np.stack([x[key] for x in items]) for key in items[0] if key != "id"}
    norms = Normaliser(batch["center"], batch["scale"])
    points = jax.vmap(scene_pointmap)(batch["depth"], batch["K"], norms)
    truth = batch["rgb"] / 127.5 - 1, points
    print("| fill | geometry | RGB | pointmap |\n|---|---|---|---|")
    for fill, geometry in (
        ("grey", "ramp"),
        ("held", "ramp"),
        ("held", "ground"),
        ("drawn", "ground"),
    ):
        told = {"fill": fill, "geometry": geometry, "outcomes": False}
        config.condition.update(told)
        task = build(config)
        frozen = task.draw_coders(jax.random.key(0))
        guess = jax.jit(task.guess)(frozen, batch)
        rgb, points = (rms(a - b) for a, b in zip(guess[:2], truth, strict=True))
        print(f"| {fill} | {geometry} | {rgb:.4f} | {points:.4f} |")


def rms(x) -> float:
    return float(jnp.sqrt(jnp.mean(jnp.square(x))))


if __name__ == "__main__":
    main()
