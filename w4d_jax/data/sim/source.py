"""Simulated episodes as a grain random-access source."""

from functools import lru_cache, partial

import jax
import numpy as np

from w4d_jax.data.sim import draw, script, world
from w4d_jax.kin import Robot, load_robot, se3
from w4d_jax.kin.inverse import inverse
from w4d_jax.types import Clip, InputError

VIEWS = ("front", "side", "wrist")
READY = np.array([0, 0.2, 0, -2.2, 0, 2.4, 0.785, 0.04], np.float32)  # over the table


@lru_cache
def arm() -> Robot:
    """One robot for all sources: what is compiled for it is compiled once."""
    return load_robot(world.ARM)


class SimSource:
    """Episode i is a function of (seed, i) alone: any order, any process, any thread.

    frames: spread uniformly over each episode, the first at rest, the last after the act.
    near_miss: the share of scripts that are led a few centimetres aside.
    """

    def __init__(
        self,
        seed: int,
        count: int,
        frames: int = 9,
        height: int = 64,
        width: int = 64,
        views: tuple[str, ...] = VIEWS,
        near_miss: float = 0.35,
        tasks: tuple[str, ...] = script.TASKS,
    ):
        for kind, given, known in (("view", views, VIEWS), ("task", tasks, script.TASKS)):
            if not given or set(given) - set(known):
                raise InputError(
                    f"simulated {kind}s {list(given)}: need some of {list(known)}"
                )
        sizes = min(count, frames, height, width)
        if seed < 0 or sizes < 1 or not 0 <= near_miss <= 1:
            raise InputError(
                f"simulation: seed {seed}, count {count}, frames {frames}, size "
                f"{height}x{width}, near_miss {near_miss:g}; need seed >= 0, near_miss in "
                "[0, 1], the rest >= 1"
            )
        self.seed, self.count, self.frames = seed, count, frames
        self.height, self.width = height, width
        self.views, self.near_miss, self.tasks = tuple(views), near_miss, tuple(tasks)
        arm()  # loaded before several threads ask for it

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:  # grain names a source by it in checkpoints
        return (
            f"SimSource(seed={self.seed}, count={self.count}, frames={self.frames}, "
            f"height={self.height}, width={self.width}, views={self.views}, "
            f"near_miss={self.near_miss}, tasks={self.tasks})"
        )

    def __getitem__(self, index) -> Clip:
        index = range(self.count)[index]
        rng = np.random.default_rng((self.seed, index))
        blocks, task, path = script.sample(rng, self.tasks, self.near_miss)
        look = draw.sample_look(rng, len(blocks.yaw))
        cameras = draw.sample_cameras(rng, self.height, self.width)

        robot = arm()
        control = command(robot, path)
        motion = world.roll(blocks, control)
        at = np.round(np.linspace(0, len(control), self.frames)).astype(int)
        joints = motion.joints[at].astype(np.float32)
        objects = motion.objects[at].astype(np.float32)
        ordered = np.concatenate([control, control[-1:]])[at].astype(np.float32)

        wrist, tool = jax.device_get(follow_hand(robot, joints, ordered))
        cameras["wrist"] = draw.wrist_camera(wrist, self.height, self.width)
        triangles = draw.scene(robot, blocks, look)
        return Clip(
            id=f"sim-{self.seed}-{index}",
            views={
                name: draw.shoot(
                    robot, triangles, joints, objects, cameras[name], look.light
                )
                for name in self.views
            },
            joint_names=robot.joint_names,
            joints=joints,
            actions=np.column_stack([tool, ordered[:, 7]]),
            objects=objects,
            fps=max(self.frames - 1, 1) / (len(control) * world.STEP),
            meta={
                "task": task.name,
                "success": script.succeeded(task, motion.objects),
                "near_miss": task.near_miss,
                "target": task.target,
                "base": task.base,
                "goal": task.goal.tolist(),
                "language": script.sentence(task, blocks, look.names),
                "block_colors": look.blocks.tolist(),
                "block_size": blocks.half.tolist(),
                "robot": robot.name,
                "tool": "tool",
                "reach": robot.reach,
            },
        )


def command(robot, path: script.Path) -> np.ndarray:
    """The servos' targets f64[S,8] along a path of the hand: seven angles and the opening,
    linear between the path's knots."""
    found = inverse(robot, "tool", path.xyz_quat.astype(np.float32), READY)
    if not found.reached.all():
        gap = found.position_error.max()
        raise RuntimeError(f"the script leads the hand {gap:.3f} m out of reach")
    steps = round(path.seconds / world.STEP)
    knot = np.linspace(0, len(path.yaw) - 1, steps)
    low = np.minimum(knot.astype(int), len(path.yaw) - 2)
    value = np.column_stack([found.q[:, :7], path.opening])
    return value[low] + (knot - low)[:, None] * (value[low + 1] - value[low])


@partial(jax.jit, static_argnums=0)
def follow_hand(robot, joints, control):
    """Measured joints f32[T,8], commands f32[T,8] (seven angles and the opening) ->
    the wrist camera's cam_from_world f32[T,4,4], the commanded tool f32[T,7]."""
    camera = robot.link_poses(joints)[:, robot.link_index("wrist_camera")]
    wanted = robot.link_poses(control.at[:, 7].divide(2.0))[:, robot.link_index("tool")]
    return se3.invert(camera), se3.xyz_quat_from_pose(wanted)
