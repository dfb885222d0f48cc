"""VGGT and WristWorld's wrist head: from views to cameras, depth, points and tracks."""

from w4d_jax.nets.vggt.config import VGGTConfig
from w4d_jax.nets.vggt.model import VGGT, Geometry

__all__ = ["VGGT", "Geometry", "VGGTConfig"]
