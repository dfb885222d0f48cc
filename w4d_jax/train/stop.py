"""Leaving when asked: SIGTERM and Ctrl-C save first."""

import os
import signal

import jax
from jax.experimental.multihost_utils import reached_preemption_sync_point


class Stop:
    """While open, SIGTERM or Ctrl-C asks to save and leave; a second one ends at once.

    Of many processes any one may be asked, and all leave after the same step. There
    `jax.distributed` listens for SIGTERM itself, and a few steps more are made.
    """

    def __enter__(self):
        self._asked, self._alone = False, jax.process_count() == 1
        numbers = (signal.SIGTERM, signal.SIGINT) if self._alone else (signal.SIGINT,)
        self._before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def after(self, step: int) -> bool:
        """Whether this step is the last. To be called once after every step."""
        return self._asked if self._alone else reached_preemption_sync_point(step)

    def _ask(self, number, frame):
        signal.signal(number, self._before[number])
        self._asked = True
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)
