"""Compiles a run for hardware that you do not have, and says whether it fits.

    python tools/plan.py --config configs/kinema4d.py:14b --topology v5p:2x2x1 \\
        [--as-given] [--tries 3] [--no-draw] [--out plan.json] [--config.key=value ...]

The very step of training and draw of samples that a run would use are compiled ahead of
time, without a byte of weights: bytes of memory, operations, what travels between chips,
and the share of the machine's peak (MFU) that no tuning can pass. It looks for the best
mesh, accumulation and rematerialisation that fit; --as-given takes the config's own. TPUs
need libtpu (the extra `plan`); `local` plans for this machine.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from w4d_jax.plan.report import table
from w4d_jax.plan.run import plan
from w4d_jax.train.__main__ import assignments
from w4d_jax.train.config import load_config, override
from w4d_jax.types import InputError


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE.py[:preset]")
    parser.add_argument(
        "--topology", required=True, metavar="v5p:2x2x1|v5e:..|v6e:..|local"
    )
    parser.add_argument("--as-given", action="store_true", help="do not search")
    parser.add_argument("--tries", type=int, default=3, help="plans to compile at most")
    parser.add_argument("--no-draw", action="store_true", help="the step of training alone")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the report as JSON")
    args, rest = parser.parse_known_args(arguments)
    changes = list(assignments(rest, parser))
    try:
        config = load_config(args.config)
        for key, text in changes:
            override(config, key, text)
        report = plan(
            config,
            args.topology,
            as_given=args.as_given,
            tries=args.tries,
            draw=not args.no_draw,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(report))
    if args.out:
        draft = args.out.with_suffix(".tmp")
        draft.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, args.out)
    return 0 if report["verdict"].startswith("fits") else 1


if __name__ == "__main__":
    sys.exit(main())
