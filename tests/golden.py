"""What tests of networks share."""

import numpy as np

from w4d_jax.parity.golden import jit, last

__all__ = ["close", "jit", "last"]


def close(ours, theirs, atol: float) -> None:
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=atol)
