"""WristWorld's geometry: anchor views -> points, cameras, the wrist camera
(arXiv 2510.07313).

python -m w4d_jax.train --config configs/wristworld_geometry.py        tiny: two cores
python -m w4d_jax.train --config configs/wristworld_geometry.py:sim    one GPU
python -m w4d_jax.train --config configs/wristworld_geometry.py:calvin \\
    --config.data.calvin.folder=DIR --config.data.calvin.robot=URDF \\
    --config.model.base=TINY    tiny's weights (tools/convert.py --kind run)
python -m w4d_jax.train --config configs/wristworld_geometry.py:full \\
    --config.data.store.train=DIR --config.data.store.test=DIR \\
    --config.model.base=VGGT    the paper's; VGGT: imported (tools/convert.py --kind vggt)
... --config.loss.projection=1.0    once points and pose are there (docs/wristworld.md)

The ablation of full: --config.loss.projection=0.0 --config.loss.pose=10.0
"""

from ml_collections import ConfigDict

from w4d_jax.types import InputError


def get_config(preset: str = "") -> ConfigDict:
    presets = {"": tiny, "tiny": tiny, "sim": sim, "calvin": calvin, "full": full}
    if preset not in presets:
        raise InputError(
            f"preset {preset!r}: need one of {', '.join(filter(None, presets))}"
        )
    return presets[preset]()


def tiny() -> ConfigDict:
    """Moments of 64x64, simulated on the fly; everything is learned from nothing."""
    pose = {"layers": 2, "heads": 4, "iterations": 1, "layer_scale": 0.1}
    dense = {"features": 16, "channels": (16, 16, 32, 32), "fine": (16, 32, 48, 64)}
    return ConfigDict(
        {
            "name": "wristworld-geometry-tiny",
            "task": "wristworld_geometry",
            "seed": 0,
            "steps": 800,
            "batch": 64,
            "log_every": 1,
            "checkpoint_every": 200,
            "sample_every": 200,
            "keep": 2,
            "mesh": {"data": -1, "fsdp": 1, "seq": 1, "tensor": 1},
            "data": {
                "sim": {"episodes": 2048, "held_out": 64, "near_miss": 0.35},
                "tracks": {"train": ""},  # made by tools/track.py; "": exact pairs
                "view": ("front", "side", "wrist"),  # the last is the one to find
                "frames": 9,  # moments of a clip
                "height": 64,
                "width": 64,
            },
            "model": {
                "base": "",
                "trains": (),  # everything
                "stem": (32, 64, 96, 128),
                "patch": 16,
                "positions": 4,
                "width": 64,
                "heads": 4,
                "layers": 4,
                "encoder_layers": 2,
                "encoder_heads": 4,
                "registers": 4,
                "taps": (0, 1, 2, 3),
                "layer_scale": 0.1,
                "camera": pose,
                "depth": None,
                "point": dense,
                "track": None,
                "wrist": {"layers": 0, "views": 2, "pose": pose},
                "remat": "none",
            },
            "pairs": 256,
            # The paper has VGGT's points to project and teaches places and turns by them
            # alone: pose 0. From nothing neither points nor pose are there, and the camera
            # that projects best stands back.
            "loss": {
                "camera": 5.0,
                "wrist": 10.0,
                "wrist_parts": (0.0, 0.0, 1.0),
                "pose": 10.0,
                "projection": 0.0,
                "near": 0.05,
                "points": 0.2,
                "depth": 0.0,
                "defects": {"stands_back": False},  # True: the paper's gradient
            },
            "optimizer": {
                "lr": 2e-3,
                "parts": (("wrist", 1.0),),  # clipped alone: points' gradients are larger
                "warmup": 50,
                "decay": "cosine",
                "ema": 0.99,
            },
        }
    )


def sim() -> ConfigDict:
    """Moments of 128x128 from the simulated world: a model worth looking at, one GPU."""
    config = tiny()
    pose = {"layers": 4, "heads": 8, "iterations": 4, "layer_scale": 0.1}
    dense = {"features": 128, "channels": (96, 192, 384, 384), "fine": (64, 96, 128)}
    config.update(
        {
            "name": "wristworld-geometry-sim",
            "steps": 40_000,
            "batch": 32,
            "log_every": 20,
            "checkpoint_every": 2_000,
            "sample_every": 2_000,
            "pairs": 1024,
        }
    )
    config.data.update({"height": 128, "width": 128})
    config.data.sim.update({"episodes": 20_000, "held_out": 256})
    config.model.update(
        {
            "stem": (64, 128, 192, 256),
            "positions": 8,
            "width": 384,
            "heads": 6,
            "layers": 12,
            "encoder_layers": 6,
            "encoder_heads": 6,
            "taps": (2, 5, 8, 11),
            "camera": pose,
            "point": dense,
            "wrist": {"layers": 0, "views": 2, "pose": pose},
            "dtype": "bfloat16",
        }
    )
    config.optimizer.update({"lr": 2e-4, "warmup": 1_000, "ema": 0.9995})
    return config


def calvin() -> ConfigDict:
    """tiny's weights, and steps on recorded CALVIN episodes for the look of the new world.

    python tools/convert.py import --kind run runs/wristworld-geometry-tiny TINY
    python -m w4d_jax.train --config configs/wristworld_geometry.py:calvin \\
        --config.model.base=TINY --config.data.calvin.folder=DIR \\
        --config.data.calvin.robot=panda_longer_finger.urdf
    """
    config = tiny()
    config.name = "wristworld-geometry-calvin"
    config.steps = 300
    config.batch = 16
    config.optimizer.lr = 5e-4
    config.data = ConfigDict(
        {
            "calvin": {"folder": "", "robot": "", "held_out": 1},
            "tracks": {"train": ""},
            "view": ("static", "opposing", "gripper"),
            "frames": 32,
            "height": 64,
            "width": 64,
        }
    )
    return config


def full() -> ConfigDict:
    """The paper: VGGT-1B at DROID's 294x518; the heads of both kinds of camera train.

    It needs model.base, an imported VGGT-1B ("" draws it at random: for tests only).
    """
    return ConfigDict(
        {
            "name": "wristworld-geometry-full",
            "task": "wristworld_geometry",
            "seed": 42,
            "steps": 80_000,
            "batch": 96,  # 4 of each of 8 devices, three times
            "accumulate": 3,
            "log_every": 20,
            "checkpoint_every": 2_000,
            "sample_every": 2_000,
            "keep": 3,
            "mesh": {"data": -1, "fsdp": 1, "seq": 1, "tensor": 1},
            "data": {
                "store": {"train": "", "test": ""},
                "tracks": {"train": ""},
                "view": ("exterior_1", "exterior_2", "wrist"),
                "frames": 81,
                "height": 294,
                "width": 518,
            },
            "model": {
                "base": "",
                "trains": ("camera", "wrist"),
                "depth": None,  # of no use here
                "track": None,
                "dtype": "bfloat16",
                "param_dtype": "float32",
                "remat": "none",  # nothing passes back through what does not train
            },
            "pairs": 2048,
            "loss": {
                "camera": 5.0,
                "wrist": 10.0,
                "wrist_parts": (0.0, 0.0, 1.0),
                "pose": 0.0,
                "projection": 1.0,
                "points": 0.0,
                "depth": 0.0,
            },
            "optimizer": {
                "lr": 2e-5,
                "parts": (("camera", 0.25),),
                "warmup": 4_000,
                "decay": "cosine",
                "b1": 0.9,
                "b2": 0.999,
                "weight_decay": 0.05,
                "clip": 1.0,
                "ema": 0.0,
            },
        }
    )
