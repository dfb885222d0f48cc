"""What the devices are fed: batches in a fixed order, which a checkpoint remembers."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import jax
from jax.sharding import NamedSharding

from w4d_jax.data.pipeline import assemble
from w4d_jax.train.shard import laid, rows_here
from w4d_jax.types import InputError


class Feed:
    """Endless batches of `items`, each process reading the rows that its devices hold.

    patience: seconds that a batch may take to come. `waited`: seconds that the last took.
    A checkpointable of orbax: its position is one number, the same for every process.
    """

    def __init__(
        self, items, batch: int, seed: int, spread: NamedSharding, patience: float
    ):
        self._spread, self._batch, self._patience = spread, batch, patience
        self._rows = rows_here(spread, batch)
        self._data = iter(assemble(items, batch, seed, rows=self._rows))
        self.waited = 0.0

    def __next__(self) -> tuple[Any, list[str]]:
        """(batch on the devices, ids of the clips that this process has read)."""
        start = time.perf_counter()
        try:
            batch = within(self._patience, lambda: next(self._data))
        except TimeoutError as error:
            raise InputError(
                f"data: no batch came within {self._patience} s; is the storage that holds "
                "the clips there? (--config.patience)"
            ) from error
        self.waited = time.perf_counter() - start
        ids = [str(id) for id in batch.pop("id")]
        return laid(self._spread, batch, self._rows, self._batch), ids

    async def save(self, directory):
        """Of orbax: takes the position now; what is returned writes it later."""
        state = json.dumps(self._data.get_state())

        async def write():
            folder = await directory.await_creation()
            if jax.process_index() == 0:
                await asyncio.to_thread((folder / "position.json").write_text, state)

        return write()

    async def load(self, directory):
        """Of orbax: goes to the position that `save` took, with any number of processes."""

        async def read():
            (file,) = directory.glob("*.json")
            self._data.set_state(json.loads(await asyncio.to_thread(file.read_text)))

        return read()


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call` returns or raises; TimeoutError if it does neither in time.

    Its thread is left behind then, and a process that waits for no thread can still end.
    """
    result: Future = Future()

    def work():
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return result.result(seconds)
