"""Triangles fixed to links: what the renderer draws."""

from typing import NamedTuple

import numpy as np


class Triangles(NamedTuple):
    """A set of triangles, each rigid in one link's frame, sorted by link.

    corners f32[N,3,3]: metres, in the link's frame, counter-clockwise seen from outside.
    link i32[N]: row of the pose array that moves the triangle; non-decreasing.
    color f32[N,3]: sRGB in [0, 1].
    """

    corners: np.ndarray
    link: np.ndarray
    color: np.ndarray
