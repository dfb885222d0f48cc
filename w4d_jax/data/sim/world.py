"""The physics: an arm at a table with loose blocks, stepped by MuJoCo."""

from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
from mujoco import rollout

ARM = Path(__file__).parents[1] / "assets" / "panda_w4d.xml"
STEP = 0.005  # seconds


class Blocks(NamedTuple):
    """Boxes lying on the table, which is the plane z = 0.

    half f64[O,3] metres; position f64[O,2] of the centres; yaw f64[O] radians;
    mass f64[O] kg; friction f64[O], sliding.
    """

    half: np.ndarray
    position: np.ndarray
    yaw: np.ndarray
    mass: np.ndarray
    friction: np.ndarray

    @property
    def poses(self) -> np.ndarray:
        """f64[O,7]: xyz + quaternion wxyz."""
        zero = np.zeros_like(self.yaw)
        quat = [np.cos(self.yaw / 2), zero, zero, np.sin(self.yaw / 2)]
        return np.column_stack([self.position, self.half[:, 2], *quat])


class Motion(NamedTuple):
    """What physics made of the commands; S steps, of which state 0 is the start.

    joints f64[S+1,8] (seven angles and one finger); objects f64[S+1,O,7].
    """

    joints: np.ndarray
    objects: np.ndarray


def roll(blocks: Blocks, control) -> Motion:
    """Runs the servos after control f64[S,8]: seven angles and the gripper's opening.

    The arm starts at rest where the first command wants it.
    """
    model = _model(blocks)
    data = mujoco.MjData(model)
    finger = control[0, 7] / 2
    data.qpos[:] = np.concatenate([control[0, :7], [finger, finger], blocks.poses.ravel()])
    start = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS))
    mujoco.mj_getState(model, data, start, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    states, _ = rollout.rollout(model, data, start[None], control[None])
    # A full state is time, qpos, qvel.
    qpos = np.concatenate([start[None], np.asarray(states)[0]])[:, 1 : 1 + model.nq]
    return Motion(joints=qpos[:, :8], objects=qpos[:, 9:].reshape(len(qpos), -1, 7))


def _model(blocks: Blocks) -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_file(str(ARM))
    spec.option.timestep = STEP
    for body in spec.bodies[1:]:
        body.gravcomp = 1  # as in the real arm's controller: the servos feel no weight
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[2, 2, 0.1])
    for half, pose, mass, friction in zip(
        blocks.half, blocks.poses, blocks.mass, blocks.friction, strict=True
    ):
        body = spec.worldbody.add_body(pos=pose[:3], quat=pose[3:])
        body.add_freejoint()
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=half,
            mass=mass,
            condim=4,
            friction=[friction, 0.01, 0.001],
            solref=[0.01, 1],
        )
    return spec.compile()
