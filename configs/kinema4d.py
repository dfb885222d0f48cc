"""Kinema4D: first image + robot + actions -> RGB and pointmap video (arXiv 2603.16669).

python -m w4d_jax.train --config configs/kinema4d.py          tiny: minutes on two cores
python -m w4d_jax.train --config configs/kinema4d.py:sim      one GPU
python -m w4d_jax.train --config configs/kinema4d.py:calvin \
    --config.data.calvin.folder=DIR --config.data.calvin.robot=URDF \
    --config.model.base=TINY    tiny fine-tuned on recordings
python -m w4d_jax.train --config configs/kinema4d.py:14b --config.data.store.train=DIR \
    --config.data.store.test=DIR --config.codec.wan.weights=FILE    the paper's; many GPUs
... --config.condition.drop=1.0                               the same without the robot
"""

from ml_collections import ConfigDict

from w4d_jax.types import InputError


def get_config(preset: str = "") -> ConfigDict:
    presets = {"": tiny, "tiny": tiny, "sim": sim, "calvin": calvin}
    presets |= {"1b": wan_1b, "14b": wan_14b, "14b_full": wan_14b_full}
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
            "steps": 400,
            "batch": 8,
            "log_every": 1,
            "checkpoint_every": 200,
            "sample_every": 200,
            "keep": 2,
            "mesh": {"data": -1, "fsdp": 1, "seq": 1, "tensor": 1},
            "data": {
                # 400 steps of 8: every episode is seen once.
                "sim": {"episodes": 3_200, "held_out": 64, "near_miss": 0.35},
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
                "crossed": True,
                "robot_width": 64,
                "robot_patch": 4,
                "base": "",  # of another run: tools/convert.py import --kind run
            },
            # rank 0: all parameters train.
            "lora": {"rank": 0, "alpha": 32.0},
            # The reference: prediction velocity, shift 1, uniform; first frame then grey.
            "flow": {
                "prediction": "residual",
                "shift": 64.0,
                "floor": 1.0,
                "robot_weight": 0.1,
            },
            "condition": {
                "fill": "drawn",
                "geometry": "ground",
                "ground": 0.0,
                "outcomes": True,
                "drop": 0.0,
                "soft": 0.1,
                "recolour": False,
                "pointmap_mean": 0.0,
                "pointmap_std": 0.005,
                "rgb_std": 0.07,
                "robot_mean": 0.0,
                "robot_std": 1.0,
            },
            # Nearer 1, as in training, a sample is hardly more than the mean.
            "sampler": {"solver": "euler", "steps": 4, "shift": 4.0},
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
    """tiny fine-tuned on recorded CALVIN episodes: another robot, given cameras, real
    occlusion.

    What tells a grasp is known from the simulation: two recordings do not teach it.

    python tools/convert.py import --kind run runs/kinema4d-tiny TINY
    python -m w4d_jax.train --config configs/kinema4d.py:calvin --config.model.base=TINY \\
        --config.data.calvin.folder=DIR --config.data.calvin.robot=panda_longer_finger.urdf
    """
    config = tiny()
    config.name = "kinema4d-calvin"
    config.batch = 2
    config.steps = 600
    config.flow.robot_weight = 1.0  # the robot file's colours are not those recorded
    config.optimizer.update({"lr": 1e-3, "muon": 0.01})
    # CALVIN's robot stands 20 cm below the table's top, in a room: more is left to learn.
    config.condition.update({"ground": 0.2, "rgb_std": 0.1, "pointmap_std": 0.15})
    config.condition.recolour = True  # and few colours are shown
    config.data = ConfigDict(
        {
            "calvin": {"folder": "", "robot": "", "held_out": 1},
            "view": ("static", "opposing"),
            "frames": 9,
            "height": 64,
            "width": 64,
        }
    )
    return config


def wan_14b() -> ConfigDict:
    """The paper: low-rank pairs on Wan2.1-I2V-14B, 49 frames of 480x720, robot pointmap.

    It needs codec.wan.weights, the video autoencoder, image.clip.weights, the image
    encoder, and model.base, an imported Wan ("" draws them at random: for tests only);
    model.adapter is an imported adapter that the pairs start from, if any
    (docs/weights.md).
    data.encoded.train is a folder of tools/encode.py, if any: training then runs neither
    autoencoder nor image encoder.

    Every value is what the authors' training ran with; where it is not, a comment says why.
    """
    return ConfigDict(
        {
            "name": "kinema4d-14b",
            "task": "kinema4d",
            "seed": 42,
            "steps": 5_000,
            "batch": 32,
            "log_every": 1,
            "checkpoint_every": 400,
            "sample_every": 400,
            "keep": 3,
            "mesh": {"data": 1, "fsdp": -1, "seq": 1, "tensor": 1},
            "data": {
                "store": {"train": "", "test": ""},
                "encoded": {"train": ""},
                "view": "front",
                "frames": 49,
                "height": 480,
                "width": 720,
            },
            # Latents are the mode of what the encoder says; theirs are samples in training
            # and the mode in deployment. Here both see the same.
            "codec": {"wan": {"weights": "", "base": 96, "dtype": "bfloat16", "chunk": 1}},
            "image": {
                "clip": {"weights": "", "dtype": "bfloat16", "param_dtype": "bfloat16"}
            },
            "model": {
                "dit": {
                    "width": 5120,
                    "heads": 40,
                    "layers": 40,
                    "ffn": 13824,
                    "patch": (1, 2, 2),
                    "image_dim": 1280,
                    "dtype": "bfloat16",
                    "param_dtype": "bfloat16",  # of the base; what trains is float32
                    "remat": "full",
                },
                "variant": "pm",
                "robot_width": 128,
                "robot_patch": 15,
                "base": "",
                "adapter": "",
            },
            "lora": {"rank": 64, "alpha": 32.0},
            # Noise levels are float32 and spread over the batch; theirs were drawn one by
            # one of 1000, of which bfloat16 left 506: that was rounding, not a choice.
            "flow": {"prediction": "velocity", "shift": 1.0, "floor": 1.0},
            "condition": {
                "fill": "grey",
                "geometry": "ramp",
                "drop": 0.0,
                "soft": 0.1,
                "rgb_std": 1.0,
                "pointmap_mean": -0.17,
                "pointmap_std": 1.36,
                "robot_mean": -0.17,
                "robot_std": 1.36,
            },
            # The authors' sampler runs guidance "reference", by accident, and pays twice.
            "sampler": {
                "solver": "unipc",
                "steps": 50,
                "shift": 3.0,
                "guidance": "off",
                "scale": 5.0,
            },
            "optimizer": {
                "lr": 2e-5,
                # As they asked for it. What ran took 100 steps for every process, rising
                # with the logarithm, because two libraries disagreed.
                "warmup": 100,
                "decay": "constant",
                "b1": 0.9,
                "b2": 0.999,
                "weight_decay": 1e-4,
                "clip": 1.0,
                "ema": 0.0,
            },
        }
    )


def wan_14b_full() -> ConfigDict:
    """14b with every parameter trained, in float32."""
    config = wan_14b()
    config.name = "kinema4d-14b-full"
    config.lora.rank = 0
    config.model.dit.param_dtype = "float32"
    return config


def wan_1b() -> ConfigDict:
    """14b_full at the sizes of Wan2.1-T2V-1.3B, which looks at no image tokens.

    Imported as model.base it is widened from 16 channels to 36, the new ones at zero.
    """
    config = wan_14b_full()
    config.name = "kinema4d-1b"
    config.model.dit.update(width=1536, heads=12, layers=30, ffn=8960, image_dim=0)
    config.image = ConfigDict()
    return config
