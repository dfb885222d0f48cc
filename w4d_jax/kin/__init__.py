"""What is exactly computable: robots, cameras, and what a camera sees of a robot."""

from w4d_jax.kin.render import render_robot
from w4d_jax.kin.robot import Robot, load_robot
from w4d_jax.types import Camera, InputError

__all__ = ["Camera", "InputError", "Robot", "load_robot", "render_robot"]
