"""Compares this package with golden files: what the original models computed.

    python tools/parity.py GOLDEN_DIR

Runs the checks of every .npz in the folder and prints for each its name, its largest error
and its tolerance. Exit status 0: all passed; 1: something failed, or a file has no checks;
2: no such folder.
"""

import argparse
import sys
import time
from pathlib import Path

import jax

from w4d_jax.parity import CHECKS


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="GOLDEN_DIR", type=Path)
    args = parser.parse_args(arguments)
    names = sorted(path.stem for path in args.folder.glob("*.npz"))
    if not names:
        print(f"error: {args.folder}: no folder with .npz files", file=sys.stderr)
        return 2
    start, count, failures = time.monotonic(), 0, 0
    with jax.default_matmul_precision("highest"):
        for name in names:
            for row in rows(args.folder, name):
                count, failures = count + 1, failures + row.endswith("FAIL")
                print(row, flush=True)
    seconds = time.monotonic() - start
    print(f"{count} checks, {failures} failed, {seconds:.0f} s")
    return 1 if failures else 0


def rows(folder: Path, name: str):
    """The lines of one file's table. What cannot be compared has failed."""
    if name not in CHECKS:
        yield f"{name:<14} no checks for this file  FAIL"
        return
    try:
        for check in CHECKS[name](folder):
            verdict = "ok" if check.passed else "FAIL"
            yield (
                f"{name:<14} {check.name:<52} {check.error:9.2e} of {check.tolerance:7.0e}"
                f"  {verdict}"
            )
    # A file may be wrong in any way; the others are still compared.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        yield f"{name:<14} {type(error).__name__}: {reason}  FAIL"


if __name__ == "__main__":
    sys.exit(main())
