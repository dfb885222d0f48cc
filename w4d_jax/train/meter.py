"""What a run reports: metrics.jsonl, TensorBoard events, and a progress bar with an ETA."""

import json
import os
import time
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tqdm import tqdm


class Meter:
    """Writes one JSON object a report, and shows the run to the person who waits for it."""

    def __init__(self, workdir: Path, start: int, steps: int):
        self._path = workdir / "metrics.jsonl"
        _forget_after(self._path, start)
        self._lines = self._path.open("a", encoding="utf-8", buffering=1)
        self._events = EventFileWriter(str(workdir / "tensorboard"))
        self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True)
        self._clock = time.perf_counter()

    def report(self, step: int, metrics: dict) -> None:
        """metrics: scalars of update number `step`; `seconds` since the last report is added."""
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        values = {name: float(np.asarray(value)) for name, value in metrics.items()}
        line = {"step": step, **values, "seconds": round(seconds, 4)}
        self._lines.write(json.dumps(line) + "\n")
        entries = [
            Summary.Value(tag=k, simple_value=v) for k, v in line.items() if k != "step"
        ]
        self._events.add_event(
            Event(step=step, wall_time=time.time(), summary=Summary(value=entries))
        )
        self._bar.update(step - self._bar.n)
        self._bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bar.write(text)

    def close(self) -> None:
        self._bar.close()
        self._lines.close()
        self._events.close()


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
