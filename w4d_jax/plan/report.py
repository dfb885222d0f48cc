"""What a plan amounts to, as numbers for a program and as a table for a reader."""

from collections.abc import Iterable, Iterator
from typing import Any

from w4d_jax.plan.chips import Chip
from w4d_jax.plan.compiled import Compiled

KINDS = {"arithmetic": "FLOPs", "memory": "HBM", "links": "links between chips"}


def summary(made: Compiled, useful: float, executed: float, chip: Chip, devices: int):
    """Of a program whose formula says `useful` FLOPs, and `executed` with what is computed
    again; the bounds are seconds that it cannot do better than."""
    sent = sum(made.traffic.sent.values())
    bounds = {
        "arithmetic": _over(executed / devices, chip.flops),
        "memory": _over(made.traffic.memory, chip.bandwidth),
        "links": _over(sent, chip.links),
    }
    known = [bound for bound in bounds.values() if bound is not None]
    peak = None if chip.flops is None else chip.flops * devices
    return {
        "bytes": {
            "arguments": made.arguments,
            "temporaries": made.temporaries,
            "peak": made.peak,
            "there": chip.hbm,
        },
        "flops": {"formula": useful, "executed": executed},
        "collectives": {
            kind: {"messages": made.traffic.count[kind], "bytes": size}
            for kind, size in made.traffic.sent.items()
        },
        "hbm_traffic": made.traffic.memory,
        "bounds": bounds,
        # With everything overlapped, and with nothing.
        "mfu": [useful / peak / t for t in (max(known), sum(known))] if peak else None,
        "compile_seconds": made.seconds,
    }


def table(report: dict[str, Any]) -> str:
    """A report of tools/plan.py."""
    lines = [
        "{config} on {topology}, {devices} x {chip}".format_map(report),
        f"batch {report['batch']} of {report['tokens']:,} tokens, "
        f"{'clips' if report['coders'] else 'encoded clips'}",
    ]
    lines += [f"  tried {tried['plan']}: {tried['said']}" for tried in report["tried"]]
    for name in ("step", "draw"):
        if name in report:
            lines += ["", *_section(name, report)]
    return "\n".join([*lines, "", report["verdict"]])


def markdown(reports: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A row for each program of each report; collectives in GB sent by a device."""
    columns = ("config", "on", "batch", "plan", "program")
    columns += ("GB a device: arguments, temporaries, peak", "of", "PFLOP", "GB sent")
    columns += ("bounds, s: FLOPs, HBM, links", "MFU at most", "compiled, s")
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for report in reports:
        where = f"| {report['config']} | {report['topology']} | {report['batch']} "
        if "plan" not in report:
            told = "; ".join(f"{x['plan']}: {x['said']}" for x in report["tried"])
            yield f"{where}| {told or report['verdict']} |" + " |" * 8
            continue
        size = report["plan"]
        mesh = " ".join(f"{axis}={n}" for axis, n in size["mesh"].items() if n > 1)
        chosen = f"{mesh}, accumulate {size['accumulate']}, remat {size['remat']}"
        for name in ("step", "draw"):
            if name in report:
                yield f"{where}| {chosen} | {name} | {_cells(report[name])} |"


def _cells(part: dict[str, Any]) -> str:
    size = part["bytes"]
    held = ", ".join(f"{size[k] / 1e9:.1f}" for k in ("arguments", "temporaries", "peak"))
    there = f"{size['there'] / 1e9:.0f}" if size["there"] else ""
    sent = "; ".join(f"{k} {v['bytes'] / 1e9:.3g}" for k, v in part["collectives"].items())
    bounds = ", ".join("" if b is None else f"{b:.3g}" for b in part["bounds"].values())
    most = f"{part['mfu'][0]:.0%} ({part['mfu'][1]:.0%})" if part["mfu"] else ""
    flops = f"{part['flops']['formula'] / 1e15:,.3g}"
    last = f"{part['compile_seconds']:.0f}"
    return " | ".join([held, there, flops, sent, bounds, most, last])


def _section(name: str, report: dict[str, Any]):
    part = report[name]
    there = part["bytes"]["there"]
    title = "train step" if name == "step" else f"draw of {report['drawn']} samples"
    yield f"{title}, compiled in {part['compile_seconds']:.0f} s"
    for key in ("arguments", "temporaries", "peak"):
        of = f"of {there / 1e9:,.0f} GB" if there and key == "peak" else ""
        yield _line(key, part["bytes"][key] / 1e9, f"GB a device {of}")
    for key, size in part["flops"].items():
        yield _line(f"FLOPs, {key}", size / 1e12, "TFLOP")
    for kind, of in part["collectives"].items():
        said = f"GB sent by a device, {of['messages']:,.0f} messages"
        yield _line(kind, of["bytes"] / 1e9, said)
    for kind, bound in part["bounds"].items():
        if bound is not None:
            yield _line(f"{KINDS[kind]} alone", bound, "s")
    if part["mfu"]:
        best, worst = part["mfu"]
        yield f"  {'MFU at most':<26}{best:>10.1%} overlapped, {worst:.1%} one by one"


def _line(name: str, amount: float, unit: str) -> str:
    """Three digits, and whole numbers beyond."""
    figure = f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"
    return f"  {name:<26}{figure:>10} {unit}".rstrip()


def _over(amount: float, rate: float | None) -> float | None:
    return None if rate is None else amount / rate
