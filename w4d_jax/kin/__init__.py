"""Robots and cameras: exact, metric, differentiable; no parameters anywhere."""

from w4d_jax.kin.robot import Robot, load_robot
from w4d_jax.types import Camera, InputError

__all__ = ["Camera", "InputError", "Robot", "load_robot", "render_robot"]


def __getattr__(name: str):
    if name == "render_robot":  # the renderer is imported by those who draw
        from w4d_jax.kin.render import render_robot

        return render_robot
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
