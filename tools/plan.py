"""Compiles a run for hardware that you do not have, and says whether it fits.

    python tools/plan.py --config configs/kinema4d.py:14b --topology v5p:2x2x1 \\
        [--as-given] [--tries 3] [--no-draw] [--thorough] \\
        [--out plan.json] [--config.key=value ...]

The very step of training and draw of samples that a run would use are compiled ahead of
time, without a byte of weights: bytes of memory, operations, what travels between chips,
and the share of the machine's peak (MFU) that no tuning can pass. It looks for the best
mesh, accumulation and rematerialisation that fit; --as-given takes the config's own. The
compiler's search for the fastest kernels is left out unless --thorough. TPUs need libtpu
(the extra `plan`); `local` plans for this machine.

    python tools/plan.py --markdown plan.json [plan.json ...]

writes reports of --out as one table (docs/scale.md).
"""

import json
import os
import sys
from pathlib import Path

from w4d_jax.plan.report import markdown, table
from w4d_jax.plan.run import plan
from w4d_jax.train.command import config_parser, parse
from w4d_jax.train.config import load_config
from w4d_jax.types import InputError


def main(arguments=None) -> int:
    parser = config_parser(__doc__, required=False)
    parser.add_argument("--topology", metavar="v5p:2x2x1|v5e:..|v6e:..|local")
    parser.add_argument("--as-given", action="store_true", help="do not search")
    parser.add_argument("--tries", type=int, default=3, help="plans to compile at most")
    parser.add_argument("--no-draw", action="store_true", help="the step of training alone")
    parser.add_argument(
        "--thorough", action="store_true", help="all the compiler's effort, as in a run"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the report as JSON")
    parser.add_argument("--markdown", type=Path, nargs="+", metavar="FILE.json")
    args, changes = parse(parser, arguments)
    if args.markdown:
        return written(args.markdown)
    if not (args.config and args.topology):
        parser.error("need --config and --topology, or --markdown")
    try:
        config = load_config(args.config, changes)
        report = plan(
            config,
            args.topology,
            as_given=args.as_given,
            tries=args.tries,
            draw=not args.no_draw,
            thorough=args.thorough,
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


def written(paths: list[Path]) -> int:
    """Prints the reports in files as a table of Markdown."""
    try:
        reports = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        lines = list(markdown(reports))
    except (OSError, ValueError, KeyError) as error:
        print(f"error: --markdown: not reports of --out: {error!r}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
