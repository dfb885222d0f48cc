"""Simulated episodes as a grain random-access source."""

import numpy as np

from w4d_jax.data.sim import draw, script, world
from w4d_jax.kin import load_robot, se3
from w4d_jax.kin.inverse import inverse
from w4d_jax.types import Clip, InputError

ROBOT = "panda_w4d"
VIEWS = ("front", "side", "wrist")
READY = np.array([0, 0.2, 0, -2.2, 0, 2.4, 0.785, 0.04], np.float32)  # over the table


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
        if (
            seed < 0
            or count < 1
            or min(frames, height, width) < 1
            or not 0 <= near_miss <= 1
        ):
            raise InputError(
                f"simulation: seed {seed}, count {count}, frames {frames}, size {height}x{width}, "
                f"near_miss {near_miss}; need seed >= 0, near_miss in [0, 1] and the rest >= 1"
            )
        self.seed, self.count, self.frames = seed, count, frames
        self.height, self.width = height, width
        self.views, self.near_miss, self.tasks = tuple(views), near_miss, tuple(tasks)
        self.robot = load_robot(world.ARM)

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

        control = command(self.robot, path)
        motion = world.roll(blocks, control)
        at = np.round(np.linspace(0, len(control), self.frames)).astype(int)
        joints = motion.joints[at].astype(np.float32)
        objects = motion.objects[at].astype(np.float32)
        ordered = np.concatenate([control, control[-1:]])[at]

        hand = np.asarray(
            self.robot.link_poses(joints)[:, self.robot.link_index("wrist_camera")]
        )
        cameras["wrist"] = draw.wrist_camera(hand, self.height, self.width)
        triangles = draw.scene(self.robot, blocks, look)
        return Clip(
            id=f"sim-{self.seed}-{index}",
            views={
                name: draw.shoot(
                    self.robot, triangles, joints, objects, cameras[name], look.light
                )
                for name in self.views
            },
            joint_names=self.robot.joint_names,
            joints=joints,
            actions=tool_actions(self.robot, ordered),
            objects=objects,
            fps=max(self.frames - 1, 1) / (len(control) * world.STEP),
            meta={
                "task": task.name,
                "success": script.succeeded(task, motion.objects),
                "near_miss": task.near_miss,
                "target": task.target,
                "goal": task.goal.tolist(),
                "language": sentence(task, look.names),
                "block_colors": look.blocks.tolist(),
                "block_size": blocks.half.tolist(),
                "robot": ROBOT,
                "tool": "tool",
                "reach": self.robot.reach,
            },
        )


def command(robot, path: script.Path) -> np.ndarray:
    """The servos' targets f64[S,8] along a path of the hand: seven angles and the opening,
    linear between the path's knots."""
    found = inverse(robot, "tool", path.xyz_quat.astype(np.float32), READY)
    if not found.reached.all():
        raise RuntimeError(
            f"the script leads {found.position_error.max():.3f} m out of reach"
        )
    steps = round(path.seconds / world.STEP)
    knot = np.linspace(0, len(path.yaw) - 1, steps)
    low = np.minimum(knot.astype(int), len(path.yaw) - 2)
    value = np.column_stack([found.q[:, :7], path.opening])
    return value[low] + (knot - low)[:, None] * (value[low + 1] - value[low])


def tool_actions(robot, control) -> np.ndarray:
    """Commanded joints and opening f64[T,8] -> the tool's place f32[T,7] and the opening."""
    q = np.column_stack([control[:, :7], control[:, 7] / 2]).astype(np.float32)
    tool = robot.link_poses(q)[:, robot.link_index("tool")]
    return np.column_stack([se3.xyz_quat_from_pose(tool), control[:, 7]]).astype(np.float32)


def sentence(task: script.Task, colors: list[str]) -> str:
    """What the script was told to do, in words."""
    block = f"the {colors[task.target]} block"
    if task.name == "pick":
        return f"pick up {block}"
    if task.name == "push":
        return f"push {block}"
    return f"put {block} on the {colors[task.base]} block"
