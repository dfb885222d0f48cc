"""kill -9 at random moments: is the resumed run, to the bit, the unbroken one?

    python tests/kills.py [COUNT]      a line a kill; 20 unless told

A run is killed after a random number of steps and a random part of the next, or while it
starts; the same command goes on. At the end all its metrics and arrays, and where its data
stood, must equal those of a run that nobody killed.
"""

import contextlib
import json
import random
import re
import sys
import tempfile
import time
import warnings
from pathlib import Path

import toy


def killed_and_whole(starter, home: Path, kills: int, seed: int = 0):
    """Yields a line a kill; at the end home/killed and home/whole are to be compared."""
    random.seed(seed)
    options = {"steps": 5 * kills // 2, "checkpoint_every": 1, "data__pause": 0.005}
    starter.train(home / "whole", **options)
    workdir = home / "killed"
    for i in range(kills):
        run = starter.start(workdir, **options)
        before, wanted = steps(workdir), random.randint(0, 3)
        while (now := steps(workdir)) < before + wanted and not over(run):
            time.sleep(0.02)
        time.sleep(random.uniform(0, 0.15 if wanted else 1.5))
        with contextlib.suppress(ProcessLookupError):
            run.kill()
        status = run.status()
        drafts = [x.name for x in (workdir / "checkpoints").glob("*tmp*")]
        saving = f", while it saved {drafts[0].split('.')[0]}" if drafts else ""
        yield f"kill {i + 1}: after step {max(now, steps(workdir))}{saving} ({status})"
    starter.train(workdir, **options)


def over(run) -> bool:
    """Whether it ended by itself."""
    return run.log.exists() and re.search("^(samples|error):", run.said(), re.M) is not None


def steps(workdir: Path) -> int:
    """The last step that was reported."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        last = (workdir / "metrics.jsonl").read_text().splitlines()[-1]
        return json.loads(last)["step"]
    return 0


def differences(one: Path, other: Path) -> list[str]:
    """What two runs ended with, where it is not the same to the bit."""
    found = []
    lines = [metrics(workdir) for workdir in (one, other)]
    if lines[0] != lines[1]:
        found.append("metrics")
    newest = [max(map(int, names(workdir))) for workdir in (one, other)]
    if newest[0] != newest[1]:
        found.append(f"steps {newest}")
    ends = [
        arrays(x / f"checkpoints/{n}") for x, n in zip((one, other), newest, strict=True)
    ]
    found += [name for name in ends[0] | ends[1] if ends[0].get(name) != ends[1].get(name)]
    return found


def names(workdir: Path) -> list[str]:
    return [x.name for x in (workdir / "checkpoints").iterdir() if x.name.isdecimal()]


def metrics(workdir: Path) -> list[dict]:
    """Every reported line but for the clock."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in x.items() if k not in ("seconds", "waited")} for x in lines]


def arrays(checkpoint: Path) -> dict[str, bytes | str]:
    """All that a checkpoint holds."""
    import jax
    import numpy as np
    from orbax.checkpoint import v1 as ocp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of orbax: read as it was saved, on one device
        state = ocp.load(str(checkpoint))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    held = {jax.tree_util.keystr(path): np.asarray(x).tobytes() for path, x in leaves}
    return held | {"data": (checkpoint / "data/position.json").read_text()}


def main(count: int) -> int:
    environment = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": str(home / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        with contextlib.closing(toy.Starter(environment)) as starter:
            for line in killed_and_whole(starter, home, count):
                print(line, flush=True)
        found = differences(home / "whole", home / "killed")
        print(f"{count} kills; {'differ: ' + ', '.join(found) if found else 'identical'}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
