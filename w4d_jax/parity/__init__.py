"""Our numbers beside the reference's: one module per golden file, and this list of them.

`checks(folder)` of a module reads its file in that folder, takes every size from the file
itself, and yields one `Check` after the other.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from w4d_jax.parity import scheduler
from w4d_jax.parity.check import Check

CHECKS: dict[str, Callable[[Path], Iterator[Check]]] = {
    "scheduler": scheduler.checks,
}
