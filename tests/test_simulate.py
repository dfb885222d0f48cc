"""Motions longer than a model: chunk by chunk, with the robot exact throughout."""

from functools import cache, partial

import jax
import numpy as np
import pytest
from runs import REPO  # noqa: F401  puts configs/ on the path

from configs.kinema4d import tiny
from w4d_jax.data.pipeline import cut
from w4d_jax.data.sim import SimSource
from w4d_jax.data.sim.source import READY, arm
from w4d_jax.kin.gripper import grip_actions
from w4d_jax.sample.simulate import known_batch, rollout
from w4d_jax.train.kinema4d import build
from w4d_jax.types import InputError

SIZE = 5, 16, 16  # what the model makes at a time
FRAMES = 12  # two chunks and a part


@cache
def scene():
    """The camera and first image of an episode, and a slow sweep of the arm, f32[12,J]."""
    view = SimSource(0, 1, 1, 32, 32, views=("front",))[0].views["front"]
    joints = np.tile(READY, (FRAMES, 1))
    joints[:, 0] = np.linspace(-0.3, 0.3, FRAMES)
    return view.rgb[0], view.camera, joints


@cache
def drawn():
    """A model that draws what is known, and no network."""
    config = tiny()
    config.data.update(dict(zip(("frames", "height", "width"), SIZE, strict=True)))
    config.model.robot_patch = 2
    task = build(config)
    guess, coders = jax.jit(task.guess), task.draw_coders(jax.random.key(0))
    return lambda batch, chunk: guess(coders, batch)


def test_a_long_motion_has_no_seams():
    image, camera, joints = scene()
    asked = []

    def draw(batch, chunk):
        asked.append(batch["rgb"][0, 0])
        return drawn()(batch, chunk)

    made = rollout(draw, image, camera, arm(), joints, SIZE, grip_actions(arm(), joints))
    assert made.rgb.shape == (FRAMES, *SIZE[1:], 3)
    assert made.camera.cam_from_world.shape == (FRAMES, 4, 4)
    assert len(asked) == 3
    for k in (1, 2):  # each chunk goes on from what the one before ended with
        np.testing.assert_array_equal(asked[k], made.rgb[4 * k])
    # The robot is where kinematics has it, as if there were no chunks.
    whole = known_batch(image, camera, arm(), joints, *SIZE[1:])
    np.testing.assert_array_equal(made.robot_mask, whole["robot_depth"][0] > 0)
    # A seam is a step like all others.
    step = np.abs(np.diff(made.rgb.astype(float), axis=0)).mean((1, 2, 3))
    place = np.linalg.norm(np.diff(made.pointmap, axis=0), axis=-1).mean((1, 2))
    for measure in (step, place):
        inside = np.delete(measure, [4, 8])
        assert measure[[4, 8]].max() < 2 * inside.max()


def test_a_moving_camera_keeps_its_poses():
    image, camera, joints = scene()
    poses = np.tile(camera.cam_from_world, (FRAMES, 1, 1))
    poses[:, 0, 3] += np.linspace(0, 0.1, FRAMES)
    moving = type(camera)(camera.width, camera.height, camera.K, poses)
    actions = grip_actions(arm(), joints)
    made = rollout(drawn(), image, moving, arm(), joints, SIZE, actions)
    np.testing.assert_allclose(made.camera.cam_from_world, poses, atol=1e-6)
    refuse = partial(rollout, drawn(), image, robot=arm(), size=SIZE)
    with pytest.raises(InputError, match="12 poses for 7 frames of actions: need 1 or 7"):
        refuse(camera=moving, joints=joints[:7])
    with pytest.raises(InputError, match="1 frame, need 2 or more"):
        refuse(camera=camera, joints=joints[:1])


def test_an_image_of_another_aspect_is_cut_as_clips_are():
    """And the camera with it: what a model is shown is what it was trained on."""
    view = SimSource(0, 1, 1, 32, 32, views=("front",))[0].views["front"]
    seen = cut(view, np.array([0]), 16, 24)
    told = known_batch(view.rgb[0], view.camera, arm(), READY[None], 16, 24)
    np.testing.assert_array_equal(told["rgb"][0], seen.rgb)
    np.testing.assert_array_equal(told["K"][0], seen.camera.K)
    assert told["robot_depth"].shape == (1, 1, 16, 24)
