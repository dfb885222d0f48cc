"""Runs of the real command whose network compiles in a blink, and quick starts of them.

A straight line is fitted to noise. What a run is made of - config, mesh, feed, checkpoints,
signals, processes - is the product's own. `Starter` imports it once and forks a process a
run, so that a start costs no import.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__)
CLIPS, WIDE, DEEP = 24, 64, 256  # a matrix that is large enough for a mesh to cut
CONFIG = {
    "name": "toy",
    "task": "toy",
    "seed": 0,
    "steps": 8,
    "batch": 4,
    "log_every": 1,
    "checkpoint_every": 2,
    "sample_every": 1000,
    "keep": 2,
    "mesh": {"data": -1, "fsdp": 1, "seq": 1, "tensor": 1},
    # pause: seconds that a clip takes to read; nan, hang: what clips are bad.
    "data": {"pause": 0.0, "nan": -1, "hang": -1},
    "model": {"width": WIDE},
    "optimizer": {"lr": 1e-2, "warmup": 2, "decay": "constant", "clip": 1e9},
}


def get_config():
    from ml_collections import ConfigDict

    return ConfigDict(CONFIG)


class Drawn(NamedTuple):
    rgb: np.ndarray


class Clips:
    """Vectors of noise, some of which are not numbers or never come."""

    def __init__(self, pause: float, nan: int, hang: int):
        self._pause, self._nan, self._hang = pause, nan, hang

    def __len__(self):
        return CLIPS

    def __getitem__(self, i):
        time.sleep(1e6 if i == self._hang else self._pause)
        x = np.random.default_rng(i).normal(size=WIDE).astype(np.float32)
        x = x * (np.nan if i == self._nan else 1)
        return {"x": x, "rgb": np.full((1, 4, 4, 3), i, np.uint8), "id": f"clip {i}"}


def build(config):
    """The task of any config."""
    import jax
    import jax.numpy as jnp

    from w4d_jax.train.task import Task

    def loss(params, frozen, batch, key):
        x = batch["x"]
        noise = jax.random.normal(key, (x.shape[0], DEEP))
        each = jnp.square(x @ params["w"] - noise).mean(-1)
        return each.mean(), {"hardest": each.max()}

    def items(split):
        settings = dict(config["data"]) if split == "train" else {**CONFIG["data"]}
        return Clips(**settings)

    return Task(
        init=lambda key: ({"w": 0.1 * jax.random.normal(key, (WIDE, DEEP))}, {}),
        load=lambda frozen: frozen,
        begin=lambda params: params,
        loss=loss,
        sample=lambda params, frozen, batch, key: Drawn(1.0 * batch["rgb"]),
        guess=lambda frozen, batch: None,
        items=items,
        columns=lambda batch, video: [batch["rgb"], video.rgb.astype(np.uint8)],
    )


# Starting runs ------------------------------------------------------------------------


class Run:
    """A process that runs the command."""

    def __init__(self, starter: "Starter", pid: int, log: Path):
        self.pid, self.log, self._starter = pid, log, starter

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def status(self, seconds: float = 300) -> int:
        """Of its end: the exit status, or minus the signal. Killed if it does not end."""
        return self._starter.ask({"wait": self.pid, "seconds": seconds})

    def said(self) -> str:
        return self.log.read_text(errors="replace")


class Starter:
    """A process that has imported everything, and forks."""

    def __init__(self, environment: dict[str, str]):
        paths = f"{HERE.parents[1]}:{HERE.parent}"
        self._process = subprocess.Popen(
            [sys.executable, str(HERE)],
            env=os.environ | environment | {"PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._runs = 0

    def ask(self, question: dict):
        assert self._process.stdin and self._process.stdout
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def start(self, workdir: Path, environment=None, files: int = 0, **changes) -> Run:
        """changes: key=text of the config, with __ for the dots. files: bytes that a file
        of the run may have; 0: any."""
        self._runs += 1
        log = workdir.with_name(f"{workdir.name}.{self._runs}.log")
        words = [f"--config={HERE}", f"--workdir={workdir}"]
        words += [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
        question = {"words": words, "environment": environment or {}, "log": str(log)}
        return Run(self, self.ask(question | {"files": files}), log)

    def train(self, workdir: Path, **options) -> Path:
        """A run to its end, which must be a good one."""
        run = self.start(workdir, **options)
        assert run.status() == 0, run.said()
        return workdir

    def together(self, workdir: Path, count: int, port: int, **options) -> list[Run]:
        """Processes of one run, a device each."""
        shared = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}"}
        shared |= {"JAX_NUM_PROCESSES": str(count)}
        return [
            self.start(workdir, shared | {"JAX_PROCESS_ID": str(i)}, **options)
            for i in range(count)
        ]

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def devices(count: int) -> dict[str, str]:
    """The environment of a process that has so many."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={count}"}


def serve() -> None:
    """Answers the questions of a Starter."""
    import w4d_jax.train.__main__ as command
    from w4d_jax.train import program
    from w4d_jax.train.cluster import leave

    program.build = build
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            print(ended(question["wait"], question["seconds"]), flush=True)
            continue
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        os.setsid()
        log = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(question["environment"])
        if question["files"]:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (question["files"],) * 2)
        leave(command.main(question["words"]))


def ended(pid: int, seconds: float) -> int:
    """The status of a child's end, which comes in time or by force."""
    late = time.monotonic() + seconds
    while time.monotonic() < late:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    serve()
