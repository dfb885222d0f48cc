"""python -m w4d_jax.train --config configs/kinema4d.py[:preset] [--workdir DIR] [--config.key=value ...]"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from w4d_jax.train.loop import run
from w4d_jax.types import InputError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/NAME.py[:preset]", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "where the run lives; the same folder again resumes it (default: runs/NAME)",
)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    if CONFIG.value is None:
        raise app.UsageError("--config is required, e.g. --config configs/kinema4d.py")
    logging.set_verbosity(logging.WARNING)
    workdir = Path(WORKDIR.value or f"runs/{CONFIG.value.name}")
    try:
        run(CONFIG.value, workdir)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main)
