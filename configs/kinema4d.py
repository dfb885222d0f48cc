"""Kinema4D: first image + robot + actions -> RGB and pointmap video (arXiv 2603.16669).

python -m w4d_jax.train --config configs/kinema4d.py          tiny: minutes on two cores
python -m w4d_jax.train --config configs/kinema4d.py:sim      one GPU
python -m w4d_jax.train --config configs/kinema4d.py:calvin --config.data.calvin.folder=DIR
... --config.condition.drop=1.0                               the same without the robot
"""

from ml_collections import ConfigDict

from w4d_jax.types import InputError


def get_config(preset: str = "") -> ConfigDict:
    presets = {"": tiny, "tiny": tiny, "sim": sim, "calvin": calvin}
    if preset not in presets:
        raise InputError(
            f"preset {preset!r}: need one of {', '.join(filter(None, presets))}"
        )
    return presets[preset]()


def tiny() -> ConfigDict:
    """9 frames of 64x64, simulated on the fly; a few minutes on two cores."""
    return ConfigDict(
        {
            "name": "kinema4d-tiny",
            "task": "kinema4d",
            "seed": 0,
            "steps": 500,
            "batch": 8,
            "log_every": 1,
            "checkpoint_every": 200,
            "sample_every": 200,
            "keep": 2,
            "mesh": {"data": -1, "fsdp": 1, "seq": 1, "tensor": 1},
            "data": {
                "sim": {"episodes": 512, "held_out": 64, "near_miss": 0.35},
                "view": "front",
                "frames": 9,
                "height": 64,
                "width": 64,
            },
            "codec": {"cosine": {"stride": (4, 4, 4)}},
            "model": {
                "dit": {
                    "width": 128,
                    "heads": 4,
                    "layers": 4,
                    "ffn": 512,
                    "patch": (1, 2, 2),
                    "remat": "attention",
                    "text_dim": 0,
                },
                "variant": "act",
                "robot_width": 64,
                "robot_patch": 4,
            },
            # rank 0: all parameters train.
            "lora": {"rank": 0, "alpha": 32.0},
            # The reference: prediction velocity, shift 1, uniform; first frame then grey.
            "flow": {
                "prediction": "residual",
                "shift": 8.0,
                "floor": 1.0,
            },
            "condition": {
                "fill": "drawn",
                "geometry": "ground",
                "drop": 0.0,
                "soft": 0.1,
                "pointmap_mean": 0.0,
                "pointmap_std": 0.005,
                "rgb_std": 0.07,
                "robot_mean": 0.0,
                "robot_std": 1.0,
            },
            "sampler": {"solver": "euler", "steps": 8, "shift": 5.0},
            "optimizer": {"lr": 2e-3, "warmup": 50, "decay": "cosine", "ema": 0.99},
        }
    )


def sim() -> ConfigDict:
    """17 frames of 128x128 from the simulated world: a model worth looking at, one GPU."""
    config = tiny()
    config.update(
        {
            "name": "kinema4d-sim",
            "steps": 40_000,
            "batch": 32,
            "log_every": 20,
            "checkpoint_every": 2_000,
            "sample_every": 2_000,
            "data": {
                "sim": {"episodes": 20_000, "held_out": 256},
                "frames": 17,
                "height": 128,
                "width": 128,
            },
            "model": {
                "dit": {
                    "width": 512,
                    "heads": 8,
                    "layers": 12,
                    "ffn": 2048,
                    "dtype": "bfloat16",
                },
                "robot_width": 128,
            },
            "optimizer": {"lr": 4e-4, "warmup": 1_000, "ema": 0.9995},
        }
    )
    return config


def calvin() -> ConfigDict:
    """tiny on recorded CALVIN episodes (npz): real camera poses, another robot."""
    config = tiny()
    with config.unlocked():
        config.name = "kinema4d-calvin"
        config.data = ConfigDict(
            {
                "calvin": {"folder": "", "robot": ""},
                "view": "static",
                "frames": 9,
                "height": 64,
                "width": 64,
            }
        )
    return config
