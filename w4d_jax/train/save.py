"""Checkpoints: state and data iterator together, in the background, whole or not at all."""

import logging
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from w4d_jax.types import InputError

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
        for step in steps:
            items = {"state": abstract_state} | ({} if data is None else {"data": data})
            try:
                return step, self._orbax.load_checkpointables(step, items)["state"]
            except Exception as error:  # a damaged folder surfaces as many types
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                logging.warning(
                    "checkpoint %s/%d cannot be read: %s", self.folder, step, reason
                )
        if steps:
            raise InputError(
                f"checkpoints {self.folder}: none of steps {steps} can be read"
            )
        return None

    def close(self) -> None:
        self.wait()
        self._orbax.close()
