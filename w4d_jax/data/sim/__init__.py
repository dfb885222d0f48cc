"""A simulated world: scripted manipulation under physics, drawn by our own renderer."""

from w4d_jax.data.sim.source import SimSource

__all__ = ["SimSource"]
