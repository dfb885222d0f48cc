"""4D world models of robots in JAX."""

__version__ = "0.1.0"
