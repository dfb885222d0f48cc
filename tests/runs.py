"""Training runs that tests are made of: the smallest model, on clips of noise."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
from clips import make_clip

from w4d_jax.data.pipeline import batches
from w4d_jax.data.store import StoreSource, write

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO))  # for configs/, which is no package of ours


def tool(name: str):
    """tools/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(name, REPO / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SIZE = {"frames": 5, "height": 16, "width": 16}
CONFIG = """
from configs.kinema4d import tiny


def get_config():
    config = tiny()
    with config.unlocked():
        config.update(steps=4, batch=2, checkpoint_every=2, sample_every=4)
        config.data = {"store": {"train": "TRAIN", "test": "TEST"}, "view": "front"}
        config.data.update(frames=5, height=16, width=16)
        config.model.dit.update(width=32, heads=2, layers=1, ffn=64)
        config.model.update(robot_width=16, robot_patch=2)
        config.sampler.steps = 2
        config.optimizer.update(lr=3e-3, warmup=2, decay="constant")
    return config
"""


def write_noise(path: Path, seeds) -> Path:
    """A store of clips whose robot covers the left half of the front view."""
    clips = []
    for seed in seeds:
        clip = make_clip(seed, **SIZE)
        view = clip.views["front"]
        seen = np.arange(SIZE["width"]) < 8
        view = view._replace(
            robot_depth=np.where(seen, 1 + view.robot_depth, 0).astype(np.float32),
            robot_rgb=view.robot_rgb * seen[:, None].astype(np.uint8),
        )
        clips.append(clip._replace(views={"front": view}))
    write(path, clips, label=f"noise {list(seeds)}")
    return path


def write_config(path: Path, train: Path, test: Path) -> Path:
    """A config file for the stores."""
    path.write_text(CONFIG.replace("TRAIN", str(train)).replace("TEST", str(test)))
    return path


def batch_of(store: Path) -> dict:
    """Two clips of `write_noise` as training sees them."""
    batch = next(iter(batches(StoreSource(store), batch=2, view="front", **SIZE)))
    batch.pop("id")
    return batch


def metrics_of(workdir: Path) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
