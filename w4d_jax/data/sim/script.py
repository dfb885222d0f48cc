"""The scripted policies: what is on the table, what the hand is told to do, what counts.

The hand always points down, so a waypoint is a place, a heading and an opening. Positions
are those of the arm's link "tool", between the finger tips. No script aims better than to
AIM; a near-miss is the same script with its decisive place a few centimetres aside, enough
for the fingers to close, pass or let go beside the block. Whether that failed is for
physics to say.
"""

from typing import NamedTuple

import numpy as np

from w4d_jax.data.sim.world import Blocks

TASKS = ("pick", "push", "stack")
KNOTS = 64  # places of the hand per episode, uniform in time
AIM = 0.007  # metres that a good script may be off, in each direction
TOLERANCE = 0.03  # metres from the goal that still count as success
OPEN, CLOSED = 0.08, 0.0
UP = np.array([0.0, 0.0, 1.0])
FINGER = 0.011, 0.014  # half the closed fingers' extent along the tool's x and y
WORKSPACE = np.array([[0.40, -0.16], [0.62, 0.16]])  # centres of blocks at the start
GOALS = np.array([[0.38, -0.22], [0.68, 0.22]])  # and where they may be pushed to


class Waypoint(NamedTuple):
    """Be at xyz with the tool's x axis at `yaw` and the fingers `opening` apart, `seconds`
    after the waypoint before."""

    xyz: np.ndarray
    yaw: float
    opening: float
    seconds: float


class Task(NamedTuple):
    """What the hand does to block `target` (and `base`, -1 = none), and the place f64[3]
    where that block's centre should end."""

    name: str
    target: int
    base: int
    goal: np.ndarray
    near_miss: bool
    waypoints: list[Waypoint]


class Path(NamedTuple):
    """The hand at N = KNOTS uniform times: xyz f64[N,3], yaw f64[N], opening f64[N]."""

    xyz: np.ndarray
    yaw: np.ndarray
    opening: np.ndarray
    seconds: float

    @property
    def xyz_quat(self) -> np.ndarray:
        """f64[N,7], wxyz: a half turn about x (pointing down) after the heading about z."""
        zero = np.zeros_like(self.yaw)
        return np.column_stack(
            [self.xyz, zero, np.cos(self.yaw / 2), np.sin(self.yaw / 2), zero]
        )


def sample(rng, tasks, near_miss: float) -> tuple[Blocks, Task, Path]:
    """A scene, a task and the hand's path, with nothing else in the fingers' way.

    `near_miss` is the probability of one.
    """
    name, miss = tasks[rng.integers(len(tasks))], bool(rng.random() < near_miss)
    count = rng.integers(2 if name == "stack" else 1, 4)
    while True:
        blocks = place(rng, count)
        task = {"pick": pick, "push": push, "stack": stack}[name](rng, blocks, miss)
        path = interpolate(task.waypoints)
        if _is_clear(blocks, task, path):
            return blocks, task, path


def place(rng, count: int) -> Blocks:
    """Blocks at least 12 cm apart, so that a hand fits between them."""
    while True:
        position = rng.uniform(*WORKSPACE, (count, 2))
        gap = np.linalg.norm(position[:, None] - position[None], axis=-1)
        if (gap + np.eye(count) > 0.12).all():
            break
    return Blocks(
        half=rng.uniform(0.025, 0.030, (count, 3)),
        position=position,
        yaw=rng.uniform(-np.pi / 4, np.pi / 4, count),
        mass=rng.uniform(0.05, 0.1, count),
        friction=rng.uniform(0.6, 0.9, count),
    )


def pick(rng, blocks: Blocks, miss: bool) -> Task:
    """Close the fingers on a block's two y faces and lift it."""
    target = int(rng.integers(len(blocks.yaw)))
    at, yaw = blocks.poses[target, :3], blocks.yaw[target]
    off = rng.uniform(-AIM, AIM, 2)
    if miss:
        off[0] = _beside(rng, blocks.half[target, 0] + FINGER[0])
    grasp = at + off[0] * _heading(yaw) + off[1] * _heading(yaw + np.pi / 2)
    lift = np.array([0, 0, rng.uniform(0.12, 0.18)])
    waypoints = [
        *_reach(rng, grasp, yaw, OPEN),
        Waypoint(grasp, yaw, CLOSED, 0.4),
        Waypoint(grasp + lift, yaw, CLOSED, rng.uniform(0.8, 1.1)),
        Waypoint(grasp + lift, yaw, CLOSED, 0.2),
    ]
    return Task("pick", target, -1, at + lift, miss, waypoints)


def push(rng, blocks: Blocks, miss: bool) -> Task:
    """Push a block along one of its sides with closed fingers."""
    target, side = int(rng.integers(len(blocks.yaw))), rng.integers(4)
    at, yaw = blocks.poses[target, :3], blocks.yaw[target] + side * np.pi / 2
    length, width = blocks.half[target, [side % 2, 1 - side % 2]]
    off = _beside(rng, width + FINGER[1]) if miss else rng.uniform(-AIM, AIM)
    along = _heading(yaw)
    goal = at + rng.uniform(0.08, 0.15) * along
    contact = off * _heading(yaw + np.pi / 2) - (length + FINGER[0]) * along
    begin, end = at + contact - 0.03 * along, goal + contact
    turn = (yaw + np.pi / 2) % np.pi - np.pi / 2  # the hand is the same after half a turn
    waypoints = [
        *_reach(rng, begin, turn, CLOSED),
        Waypoint(end, turn, CLOSED, rng.uniform(1.0, 1.4)),
        Waypoint(end, turn, CLOSED, 0.2),
        Waypoint(end + 0.12 * UP, turn, CLOSED, rng.uniform(0.5, 0.7)),
    ]
    return Task("push", target, -1, goal, miss, waypoints)


def stack(rng, blocks: Blocks, miss: bool) -> Task:
    """Pick a block and let go of it on top of another, square to it."""
    target, base = (int(i) for i in rng.choice(len(blocks.yaw), 2, replace=False))
    at, yaw, side = blocks.poses[target, :3], blocks.yaw[target], rng.integers(4)
    turn = blocks.yaw[base]
    turn += np.round((yaw - turn) / (np.pi / 2)) * np.pi / 2  # the nearest quarter turn
    half = blocks.half[base, side % 2]
    off = half + rng.uniform(0.012, 0.030) if miss else rng.uniform(-AIM, AIM)
    height = (blocks.half[target, 2] + blocks.half[base, 2]) * UP
    goal = blocks.poses[base, :3] + height
    release = goal + 0.004 * UP + off * _heading(blocks.yaw[base] + side * np.pi / 2)
    away = 0.08 * UP
    waypoints = [
        *_reach(rng, at, yaw, OPEN),
        Waypoint(at, yaw, CLOSED, 0.4),
        Waypoint(at + height + away, yaw, CLOSED, rng.uniform(0.5, 0.7)),
        Waypoint(release + away, turn, CLOSED, rng.uniform(0.7, 0.9)),
        Waypoint(release, turn, CLOSED, rng.uniform(0.5, 0.7)),
        Waypoint(release, turn, CLOSED, 0.15),
        Waypoint(release, turn, OPEN, 0.3),
        Waypoint(release + away, turn, OPEN, rng.uniform(0.5, 0.7)),
        Waypoint(release + away, turn, OPEN, 0.3),  # what tumbles comes to rest
    ]
    return Task("stack", target, base, goal, miss, waypoints)


def succeeded(task: Task, objects) -> bool:
    """objects f64[S,O,7]: does the target end within TOLERANCE of its goal?"""
    return bool(np.linalg.norm(objects[-1, task.target, :3] - task.goal) < TOLERANCE)


def sentence(task: Task, blocks: Blocks, colors: list[str]) -> str:
    """What the hand is told, in words. The robot looks along x, so its left is y."""
    block = f"the {colors[task.target]} block"
    if task.name == "pick":
        return f"pick up {block}"
    if task.name == "stack":
        return f"put {block} on the {colors[task.base]} block"
    x, y = task.goal[:2] - blocks.position[task.target]
    if abs(x) > abs(y):
        return f"push {block} {'forward' if x > 0 else 'back'}"
    return f"push {block} to the {'left' if y > 0 else 'right'}"


def interpolate(waypoints: list[Waypoint]) -> Path:
    """Minimum-jerk moves from waypoint to waypoint, each of which is a stop."""
    ends = np.cumsum([w.seconds for w in waypoints])
    time = np.linspace(ends[0], ends[-1], KNOTS)
    move = np.clip(np.searchsorted(ends, time, side="right"), 1, len(ends) - 1)
    x = (time - ends[move - 1]) / (ends[move] - ends[move - 1])
    s = x**3 * (10 - 15 * x + 6 * x**2)
    value = np.array([[*w.xyz, w.yaw, w.opening] for w in waypoints])
    value = value[move - 1] + s[:, None] * (value[move] - value[move - 1])
    return Path(value[:, :3], value[:, 3], value[:, 4], float(ends[-1] - ends[0]))


def _reach(rng, place, yaw: float, opening: float) -> list[Waypoint]:
    """From some raised start over to `place`, and down to it."""
    start = rng.uniform([0.40, -0.14, 0.18], [0.54, 0.14, 0.26])
    return [
        Waypoint(start, yaw + rng.uniform(-0.5, 0.5), rng.uniform(CLOSED, OPEN), 0.0),
        Waypoint(place + 0.10 * UP, yaw, opening, rng.uniform(0.8, 1.1)),
        Waypoint(place, yaw, opening, rng.uniform(0.5, 0.7)),
    ]


def _beside(rng, touching: float) -> float:
    """A sideways offset (metres, either sign) just beyond where two bodies touch."""
    return rng.choice([-1, 1]) * (touching + rng.uniform(0.002, 0.018))


def _heading(yaw: float) -> np.ndarray:
    return np.array([np.cos(yaw), np.sin(yaw), 0.0])


def _is_clear(blocks: Blocks, task: Task, path: Path) -> bool:
    """The goal is on the stage, and wherever the hand is low, the blocks that the task does
    not concern are farther than an open finger reaches."""
    x, y = task.goal[:2]
    (x0, y0), (x1, y1) = GOALS
    others = [i for i in range(len(blocks.yaw)) if i not in (task.target, task.base)]
    low = path.xyz[path.xyz[:, 2] < 0.13, :2]
    gap = np.linalg.norm(low[:, None] - blocks.position[others], axis=-1)
    return x0 <= x <= x1 and y0 <= y <= y1 and bool((gap > 0.095).all())
