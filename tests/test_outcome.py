"""The two drawings that Kinema4D's network chooses from, against physics."""

import jax
import numpy as np
import pytest
from runs import REPO  # noqa: F401  puts configs/ on the path

from configs.kinema4d import tiny
from w4d_jax.data.pipeline import sample
from w4d_jax.data.result import Result
from w4d_jax.data.sim import SimSource
from w4d_jax.evaluate.task import task_of, task_scores
from w4d_jax.kin.camera import pointmap, to_world
from w4d_jax.sample.simulate import results
from w4d_jax.train.kinema4d import build
from w4d_jax.types import Camera

SIZE = {"frames": 9, "height": 64, "width": 64}
CLIPS = 8


def judged(draw, clips):
    """Where each drawn block ends, beside where physics had it."""
    items = [sample(clip, "front", **SIZE) for clip in clips]
    batch = {k: np.stack([item[k] for item in items]) for k in items[0] if k != "id"}
    scores = []
    for made, item, clip in zip(results(draw(batch), batch), items, clips, strict=True):
        camera = Camera(64, 64, item["K"], item["cam_from_world"])
        points = to_world(pointmap(item["depth"], camera.K), camera.cam_from_world)
        mask = item["robot_depth"] > 0
        truth = Result(item["rgb"], np.asarray(points), mask, camera)
        task = task_of(clip)
        assert task is not None
        scores.append(task_scores(made, truth, task)["end_agrees"])
    return scores


@pytest.mark.parametrize("near_miss, tasks", [(0.0, ("pick", "stack")), (1.0, ("push",))])
def test_a_drawing_ends_where_physics_does(near_miss, tasks):
    """What a good script takes is drawn within 3 cm of its end; what a bad one passes by
    is drawn within 3 cm of where it stood."""
    task = build(tiny())
    _, frozen = jax.eval_shape(task.init, jax.random.key(0))
    draw = task.left if near_miss else task.guess
    source = SimSource(11, CLIPS, 9, 64, 64, ("front",), near_miss, tasks)
    clips = [source[i] for i in range(CLIPS)]
    ends = judged(jax.jit(lambda batch: draw(frozen, batch)), clips)
    assert np.nanmean(ends) > 0.8 and np.isfinite(ends).sum() >= CLIPS - 2, ends
