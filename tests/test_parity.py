"""The golden files: every check of each passes, and a planted mistake does not."""

from pathlib import Path

import numpy as np
import pytest

from w4d_jax.parity import CHECKS
from w4d_jax.parity.check import compare, compare_relative

SHARED = Path(__file__).parents[2] / "shared" / "golden"
# The small files travel with the tests; the large ones lie beside the checkout.
FILES = {
    path.stem: path.parent
    for folder in (SHARED, Path(__file__).parent / "golden")
    for path in sorted(folder.glob("*/*.npz"))
    if path.stem in CHECKS
}


@pytest.mark.parametrize("name", FILES)
def test_golden(name):
    checks = list(CHECKS[name](FILES[name]))
    assert checks
    assert [check for check in checks if not check.passed] == []


def test_compare():
    a = np.float32([1, 2, 3])
    off = np.float32([1, 2.5, 3])
    assert compare("x", a, a, 0) == ("x", 0, 0) and compare("x", a, a, 0).passed
    assert compare("x", off, a, 0.1).error == 0.5
    assert not compare("x", off, a, 0.1).passed
    assert compare_relative("x", 2 * a, a, 0.5).error == 1
    for wrong in (a[:2], a[None], np.float32([1, 2, np.nan]), np.float32([1, np.inf, 3])):
        for check in (compare("x", wrong, a, 1e9), compare_relative("x", a, wrong, 1e9)):
            assert not check.passed and check.error == np.inf
