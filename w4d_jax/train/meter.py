"""What a run reports: metrics.jsonl, TensorBoard events, and a progress bar with an ETA."""

import json
import math
import os
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tqdm import tqdm


class Meter:
    """Writes one JSON object every `every` steps, and shows the run to who waits for it."""

    def __init__(self, workdir: Path, start: int, steps: int, every: int = 1):
        self._path = workdir / "metrics.jsonl"
        _forget_after(self._path, start)
        self._lines = self._path.open("a", encoding="utf-8", buffering=1)
        self._events = EventFileWriter(str(workdir / "tensorboard"))
        self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True)
        self._every, self._written = every, start
        self._clock = time.perf_counter()

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """metrics of update number `step`; adds the mean `seconds` of a step up to here."""
        self._bar.set_postfix(loss=f"{metrics['loss']:.4f}", refresh=False)
        self._bar.update(step - self._bar.n)
        if step % self._every and step != self._bar.total:
            return
        now = time.perf_counter()
        seconds = (now - self._clock) / (step - self._written)
        self._clock, self._written = now, step
        values = {**metrics, "seconds": round(seconds, 4)}
        # JSON has no NaN: null.
        line = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._lines.write(json.dumps({"step": step, **line}) + "\n")
        entries = [Summary.Value(tag=k, simple_value=v) for k, v in values.items()]
        self._events.add_event(
            Event(step=step, wall_time=time.time(), summary=Summary(value=entries))
        )

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bar.write(text)

    def close(self) -> None:
        self._bar.close()
        self._lines.close()
        self._events.close()


class Silence:
    """The meter of a process that is not the first."""

    def report(self, step: int, metrics: dict[str, float]) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


def _forget_after(path: Path, step: int) -> None:
    """Drops what an interrupted run reported beyond the checkpoint that it resumes from."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):  # the line that the kill cut short
            continue
    draft = path.with_suffix(".tmp")
    draft.write_text("".join(kept), encoding="utf-8")
    os.replace(draft, path)
