"""Bytes of the published models, computed from their shapes: nothing is allocated.

    python bench/sizes.py

What a machine holds of each, of Kinema4D's training state (parameters that train, their
average and Adam's two moments, float32), and of a conversion (one tensor of theirs at a
time) or a start from imported weights (one leaf of ours).
"""

from math import prod

import jax

from w4d_jax.nets import lora
from w4d_jax.nets.clip import ClipConfig
from w4d_jax.nets.dit import DiTConfig, wan_1_3b, wan_14b_i2v
from w4d_jax.nets.kinema4d import ADDED, LORA_TARGETS, Kinema4DConfig, kinema4d_14b
from w4d_jax.nets.models import MODELS
from w4d_jax.nets.text import TextConfig
from w4d_jax.nets.vae import VAEConfig
from w4d_jax.nets.weights import flat, tree

GB = 1e-9
PUBLISHED = {
    "Wan2.1-I2V-14B": ("wan", DiTConfig(**wan_14b_i2v())),
    "Wan2.1-T2V-1.3B": ("wan", DiTConfig(**wan_1_3b())),
    "its autoencoder": ("vae", VAEConfig()),
    "CLIP ViT-H/14": ("clip", ClipConfig()),
    "umT5-XXL": ("umt5", TextConfig()),
}


def main() -> None:
    print("| model | parameters | GB, bfloat16 | largest leaf | largest tensor |")
    print("|---|---|---|---|---|")
    for name, (model, config) in PUBLISHED.items():
        shapes = MODELS[model].shapes(config)
        count = sum(map(prod, shapes.values()))
        leaf = 2 * GB * max(map(prod, shapes.values()))
        tensor = (
            2
            * GB
            * max(
                prod(shape[1:] if "blocks/" in path else shape)
                for path, shape in shapes.items()
            )
        )
        print(f"| {name} | {count:,} | {2 * GB * count:.2f} | {leaf:.2f} | {tensor:.2f} |")

    shapes = MODELS["kinema4d"].shapes(Kinema4DConfig(**kinema4d_14b()))
    used = {path: n for path, n in shapes.items() if not path.startswith("text/")}
    everything = sum(map(prod, used.values()))
    base = {p: n for p, n in used.items() if p.split("/")[0] not in ADDED}
    pairs = flat(
        jax.eval_shape(
            lambda key, params: lora.init(key, params, 64, LORA_TARGETS),
            jax.random.key(0),
            tree({p: jax.ShapeDtypeStruct(n, "float32") for p, n in base.items()}),
        )
    )
    frozen = sum(map(prod, base.values()))
    trained = sum(x.size for x in pairs.values()) + everything - frozen
    print(f"\n14b: base {2 * GB * frozen:.1f} GB in bfloat16; "
          f"{trained:,} train, their state {16 * GB * trained:.1f} GB")  # fmt: skip
    print(f"14b_full: {everything:,} train, their state {16 * GB * everything:.0f} GB")


if __name__ == "__main__":
    main()
