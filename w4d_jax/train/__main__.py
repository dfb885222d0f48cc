"""Trains what a config describes; the same workdir again goes on where the run was.

    python -m w4d_jax.train --config configs/kinema4d.py[:preset] [--workdir DIR] \\
        [--config.key=value ...]

DIR receives config.json, metrics.jsonl (a line a report), tensorboard/, checkpoints/ and
samples/. SIGTERM or Ctrl-C saves a checkpoint and leaves. Many processes train as one where
--config.cluster or their environment says so: docs/clusters.md.
"""

import os
import sys
import traceback
from pathlib import Path

import jax

from w4d_jax.train.cluster import ClusterConfig, join, leave
from w4d_jax.train.command import config_parser, parse
from w4d_jax.train.config import filled, load_config
from w4d_jax.train.loop import run
from w4d_jax.types import InputError


def main(arguments=None) -> int:
    parser = config_parser(__doc__, "python -m w4d_jax.train")
    parser.add_argument("--workdir", metavar="DIR", help="default: runs/ and config.name")
    args, changes = parse(parser, arguments)
    try:
        config = load_config(args.config, changes)
        join(filled(ClusterConfig, config.cluster, "cluster"))
        run(config, Path(args.workdir or f"runs/{config.name}"))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def remember_programs() -> None:
    """What takes longer than a second to compile is kept on disk for the next start, in
    JAX_COMPILATION_CACHE_DIR or in ~/.cache/w4d_jax."""
    if jax.config.jax_compilation_cache_dir is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "w4d_jax"))


if __name__ == "__main__":
    remember_programs()
    try:
        status = main()
    except Exception:
        traceback.print_exc()
        status = 1
    leave(status)
