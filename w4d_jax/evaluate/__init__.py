"""Metrics of generated 4D videos: image, geometry, robot, task. Arrays in, numbers out."""

from w4d_jax.evaluate.report import markdown, summarise, write_report
from w4d_jax.evaluate.scores import BASELINE, Case, Entry, score_case
from w4d_jax.evaluate.task import Task, task_of
from w4d_jax.evaluate.video import repeat_first_frame, robot_surface

__all__ = [
    "BASELINE",
    "Case",
    "Entry",
    "Task",
    "markdown",
    "repeat_first_frame",
    "robot_surface",
    "score_case",
    "summarise",
    "task_of",
    "write_report",
]
