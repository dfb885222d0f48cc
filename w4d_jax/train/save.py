"""Checkpoints: state and data iterator together, in the background, whole or not at all."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from w4d_jax.types import InputError

LOG = logging.getLogger(__name__)
UNWANTED = ocp.PLACEHOLDER  # in an abstract state: do not read this leaf


class Checkpoints:
    """The checkpoints of one run, in `folder`; the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int | None = 3):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"checkpoints {folder}: cannot create it ({error})") from error
        self.folder = folder
        newest: Any = ocp.training.preservation_policies.LatestN(keep)
        self._orbax = ocp.training.Checkpointer(
            str(folder.absolute()),
            preservation_policy=newest,
        )
        self._pending = None

    def save(self, step: int, state, data) -> None:
        """Starts a save; state has left the device when this returns and may be donated."""
        self.wait()
        items = {"state": state, "data": data}
        # A checkpoint of this step may lie there, damaged; `restore` passed it over.
        self._pending = self._orbax.save_checkpointables_async(
            step, items, force=True, overwrite=True
        )

    def wait(self) -> None:
        """Returns when the last save is whole on disk; raises what made it fail."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def restore(self, abstract_state, data=None):
        """(step, state) of the newest readable checkpoint, or None where there is none.

        abstract_state: the shapes wanted, each with the sharding to land on (any mesh), or
        UNWANTED for what is not. `data`, an iterator, is set to the position
        saved with the state. A damaged checkpoint is reported and the one before it taken.
        """
        steps = sorted((c.step for c in self._orbax.checkpoints), reverse=True)
        items = {"state": abstract_state} | ({} if data is None else {"data": data})
        for step in steps:
            try:
                with late_reads_unheard():
                    return step, self._orbax.load_checkpointables(step, items)["state"]
            except Exception as error:  # a damaged folder surfaces as many types
                LOG.warning(
                    "checkpoint %s/%d cannot be read: %s", self.folder, step, root(error)
                )
        if steps:
            raise InputError(
                f"checkpoints {self.folder}: none of steps {steps} can be read"
            )
        return None

    def close(self) -> None:
        self.wait()
        self._orbax.close()


def root(error: BaseException) -> str:
    """The first words of what an error goes back to."""
    while below := error.__cause__ or error.__context__:
        error = below
    return f"{type(error).__name__} {' '.join(str(error).split())[:160]}"


@contextlib.contextmanager
def late_reads_unheard() -> Iterator[None]:
    """When a load fails, dozens of other reads are under way; each would write a traceback
    to stderr, also long after the load has returned. One line is enough."""
    shown, asyncio = sys.unraisablehook, logging.getLogger("asyncio")

    def hook(entry):
        if str(entry.exc_value) != "Event loop is closed":
            shown(entry)

    sys.unraisablehook, asyncio.disabled = hook, True
    yield
    sys.unraisablehook, asyncio.disabled = shown, False
