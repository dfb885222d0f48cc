"""WristWorld's video model: anchor videos and a condition map in, wrist video out
(arXiv 2510.07313).

python -m w4d_jax.train --config configs/wristworld_video.py        tiny: two cores
python -m w4d_jax.train --config configs/wristworld_video.py:sim    one GPU
python -m w4d_jax.train --config configs/wristworld_video.py:calvin \\
    --config.data.calvin.folder=DIR --config.data.calvin.robot=URDF \\
    --config.model.base=TINY    tiny's weights (tools/convert.py --kind run)
python -m w4d_jax.train --config configs/wristworld_video.py:full \\
    --config.data.store.train=DIR --config.data.store.test=DIR \\
    --config.codec.wan.weights=FILE --config.image.clip.weights=FILE \\
    --config.text.file=FILE                                         the paper's sizes
"""

from ml_collections import ConfigDict

from w4d_jax.types import InputError


def get_config(preset: str = "") -> ConfigDict:
    presets = {"": tiny, "tiny": tiny, "sim": sim, "calvin": calvin}
    presets |= {"full": full, "lora": lora}
    if preset not in presets:
        raise InputError(
            f"preset {preset!r}: need one of {', '.join(filter(None, presets))}"
        )
    return presets[preset]()


def tiny() -> ConfigDict:
    """9 frames of 64x64, simulated on the fly; two anchor views with exact depth."""
    return ConfigDict(
        {
            "name": "wristworld-video-tiny",
            "task": "wristworld_video",
            "seed": 0,
            "steps": 400,
            "batch": 8,
            "log_every": 1,
            "checkpoint_every": 200,
            "sample_every": 200,
            "keep": 2,
            "mesh": {"data": -1, "fsdp": 1, "seq": 1, "tensor": 1},
            "data": {
                "sim": {"episodes": 512, "held_out": 64, "near_miss": 0.35},
                "anchors": ("front", "side"),
                "view": "wrist",
                "robot": False,  # True: in the map the robot is drawn, not seen
                "frames": 9,
                "height": 64,
                "width": 64,
            },
            "codec": {"cosine": {"stride": (4, 4, 4)}},
            # What stands for CLIP's class token and for umT5's prompt at this size.
            "image": {"thumbnail": {"side": 8}},
            "text": {"rows": 18, "file": ""},
            "model": {
                "base": "",
                "dit": {
                    "width": 128,
                    "heads": 4,
                    "layers": 4,
                    "ffn": 512,
                    "patch": (1, 2, 2),
                    "remat": "attention",
                    "text_dim": 64,
                },
                "hidden": 128,
                "frames": 9,
                "dropout": 0.0,
            },
            # rank 0: all parameters train.
            "lora": {"rank": 0, "alpha": 4.0},
            "flow": {
                "prediction": "residual",
                "shift": 64.0,
                "floor": 1.0,
                "levels": "even",
            },
            "condition": {
                "holes": "filled",
                "validity": True,
                "new_std": 0.02,
                "drop": 0.0,
                "drop_context": 0.0,
                "rgb_std": 0.25,
            },
            "sampler": {"solver": "euler", "steps": 4, "shift": 64.0},
            "optimizer": {
                "lr": 2e-3,
                "muon": 0.02,
                "warmup": 50,
                "decay": "cosine",
                "ema": 0.99,
            },
        }
    )


def sim() -> ConfigDict:
    """17 frames of 128x128 from the simulated world: a model worth looking at, one GPU."""
    config = tiny()
    config.update(
        {
            "name": "wristworld-video-sim",
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
            "text": {"rows": 34},
            "model": {
                "dit": {
                    "width": 512,
                    "heads": 8,
                    "layers": 12,
                    "ffn": 2048,
                    "dtype": "bfloat16",
                },
                "hidden": 512,
                "frames": 17,
            },
            "optimizer": {"lr": 4e-4, "warmup": 1_000, "ema": 0.9995},
        }
    )
    return config


def calvin() -> ConfigDict:
    """tiny's weights, and steps on recorded CALVIN episodes: the gripper's camera.

    python tools/convert.py import --kind run runs/wristworld-video-tiny TINY
    python -m w4d_jax.train --config configs/wristworld_video.py:calvin \\
        --config.model.base=TINY --config.data.calvin.folder=DIR \\
        --config.data.calvin.robot=panda_longer_finger.urdf
    """
    config = tiny()
    config.name = "wristworld-video-calvin"
    config.steps = 300
    config.batch = 1  # clips of two recordings, one of them held out
    config.optimizer.update({"lr": 1e-3, "muon": 0.01})
    config.data = ConfigDict(
        {
            "calvin": {"folder": "", "robot": "", "held_out": 1},
            "anchors": ("static", "opposing"),
            "view": "gripper",
            "robot": False,
            "frames": 9,
            "height": 64,
            "width": 64,
        }
    )
    return config


def full() -> ConfigDict:
    """The paper's: Wan2.1-T2V-1.3B, two anchors, 81 frames of 480x832, all weights trained.

    Clips of the stores hold the 81 frames, and the depths and cameras of their anchors and
    wrist, measured or predicted by the first stage. Files: the video autoencoder in
    diffusers' names, CLIP's ViT-H/14, the prompts as umT5 embeds them, and in model.base an
    imported Wan or WristWorld; "" draws the weights at random and stands for no text. The
    reference's training is not published: the weighting is that of its scheduler.
    """
    return ConfigDict(
        {
            "name": "wristworld-video-full",
            "task": "wristworld_video",
            "seed": 42,
            "steps": 20_000,
            "batch": 8,
            "log_every": 1,
            "checkpoint_every": 500,
            "sample_every": 500,
            "keep": 3,
            "mesh": {"data": 1, "fsdp": -1, "seq": 1, "tensor": 1},
            "data": {
                "store": {"train": "", "test": ""},
                "anchors": ("ext1", "ext2"),
                "view": "wrist",
                "robot": False,
                "frames": 81,
                "height": 480,
                "width": 832,
            },
            "codec": {"wan": {"weights": "", "base": 96, "dtype": "bfloat16", "chunk": 1}},
            "image": {
                "clip": {"weights": "", "dtype": "bfloat16", "param_dtype": "bfloat16"}
            },
            "text": {"rows": 512, "file": ""},
            "model": {
                "dit": {
                    "width": 1536,
                    "heads": 12,
                    "layers": 30,
                    "ffn": 8960,
                    "patch": (1, 2, 2),
                    "text_dim": 4096,
                    "dtype": "bfloat16",
                    "param_dtype": "float32",
                    "remat": "full",
                },
                "hidden": 2048,
                "frames": 200,
                "dropout": 0.1,
                "base": "",
            },
            "lora": {"rank": 0, "alpha": 4.0},
            "flow": {
                "prediction": "velocity",
                "shift": 5.0,
                "floor": 1.0,
                "levels": "bell",
            },
            # The reference: black, validity False, new_std 0.02, drop_context unknown.
            "condition": {
                "holes": "filled",
                "validity": True,
                "new_std": 0.0,
                "drop": 0.0,
                "drop_context": 0.1,
                "rgb_std": 1.0,
            },
            # The reference: euler_bfloat16.
            "sampler": {
                "solver": "euler",
                "steps": 50,
                "shift": 5.0,
                "guidance": "reference",
                "scale": 5.0,
            },
            "optimizer": {
                "lr": 1e-5,
                "warmup": 0,
                "decay": "constant",
                "b1": 0.9,
                "b2": 0.999,
                "weight_decay": 0.01,
                "clip": 1.0,
                "ema": 0.0,
            },
        }
    )


def lora() -> ConfigDict:
    """full with the paper's adapters: rank 4 on attention and feed-forward matrices."""
    config = full()
    config.name = "wristworld-video-lora"
    config.lora.rank = 4
    config.model.dit.param_dtype = "bfloat16"
    return config
