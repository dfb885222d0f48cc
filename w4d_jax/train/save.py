"""Checkpoints: state and data position together, in the background, whole or not at all.

Of many processes each writes and reads what lies on its devices, in one folder that all
of them see.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from orbax.checkpoint import v1 as ocp

from w4d_jax.train.cluster import about_others, lost
from w4d_jax.types import InputError

LOG = logging.getLogger(__name__)
UNWANTED = ocp.PLACEHOLDER  # in an abstract state: do not read this leaf
# What fails in orbax is raised here, and told in one line; orbax itself logs a traceback in
# each of a dozen threads.
logging.getLogger("absl").addFilter(
    lambda record: not (record.exc_info and "orbax" in record.pathname)
)


class Checkpoints:
    """The checkpoints of one run, in `folder`; the newest `keep` stay.

    clean: remove what a killed save has left, where no other run can be saving.
    """

    def __init__(self, folder: Path, keep: int | None = 3, clean: bool = False):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"checkpoints {folder}: cannot create it ({error})") from error
        self.folder = folder
        newest: Any = ocp.training.preservation_policies.LatestN(keep)
        self._orbax = ocp.training.Checkpointer(
            str(folder.absolute()),
            preservation_policy=newest,
            cleanup_tmp_directories=clean,
        )
        self._pending, self._step, self._failed = None, 0, False

    def save(self, step: int, state, data) -> None:
        """Starts a save; state has left the device when this returns and may be donated."""
        self.wait()
        self._step = step
        with self._writing():
            # A checkpoint of this step may lie there, damaged; `restore` passed it over.
            self._pending = self._orbax.save_checkpointables_async(
                step, {"state": state, "data": data}, force=True, overwrite=True
            )

    def wait(self) -> None:
        """Returns when the last save is whole on disk; InputError if it cannot be."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._writing():
                pending.result()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of the system, of tensorstore, of orbax
            self._failed = True
            if about_others(error):
                raise lost(error) from error
            raise InputError(
                f"checkpoint {self.folder}/{self._step}: not written ({root(error)}); mend "
                "that, and the same command goes on from the checkpoint before"
            ) from error

    def restore(self, abstract_state, data=None) -> tuple[int, Any] | None:
        """(step, state) of the newest readable checkpoint, or None where there is none.

        abstract_state: the shapes wanted, each with the sharding to land on (any mesh), or
        UNWANTED for what is not. `data` (train/feed.py) is set to the position
        saved with the state. A damaged checkpoint is reported and the one before it taken;
        one is damaged for all processes if it is for any.
        """
        steps = sorted((c.step for c in self._orbax.checkpoints), reverse=True)
        items = {"state": abstract_state} | ({} if data is None else {"data": data})
        for step in steps:
            state = None
            try:
                with alone(), late_reads_unheard():
                    path = str(self.folder.absolute() / str(step))
                    state = ocp.load_checkpointables(path, items)["state"]
            except Exception as error:  # a damaged folder surfaces as many types
                LOG.warning(
                    "checkpoint %s/%d cannot be read: %s", self.folder, step, root(error)
                )
            if np.all(process_allgather(np.array(state is not None))):
                return step, state
        if steps:
            raise InputError(
                f"checkpoints {self.folder}: none of steps {steps} can be read"
            )
        return None

    def close(self) -> None:
        self.wait()
        if not self._failed:  # it would raise again what the save has raised
            self._orbax.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, trace) -> None:
        """Waits for the last save, but not for processes that are lost."""
        if not about_others(error):
            self.close()


def root(error: BaseException) -> str:
    """What an error goes back to, in few words: which file, and at its end why."""
    while below := error.__cause__ or error.__context__:
        error = below
    text = f"{type(error).__name__} {' '.join(str(error).split())}"
    return text if len(text) <= 170 else f"{text[:80]} ... {text[-80:]}"


def alone() -> ocp.Context:
    """In it a process reads by itself: the others may fail where it does not."""
    context, this = ocp.Context(), jax.process_index()
    context.multiprocessing.primary_host = this
    context.multiprocessing.active_processes = {this}
    return context


@contextlib.contextmanager
def late_reads_unheard() -> Iterator[None]:
    """When a load fails, dozens of other reads are under way; each would write a traceback
    to stderr, also long after the load has returned, whatever else has been loaded since:
    after a failure they stay unheard. One line is enough."""
    shown, asyncio = sys.unraisablehook, logging.getLogger("asyncio")
    deaf = asyncio.disabled

    def hook(entry):
        if str(entry.exc_value) != "Event loop is closed":
            shown(entry)

    sys.unraisablehook, asyncio.disabled = hook, True
    yield
    sys.unraisablehook, asyncio.disabled = shown, deaf
