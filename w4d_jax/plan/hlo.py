"""Reading a compiled program's text: what moves between chips, and out of their memory.

Loops count as often as they run. What lies in a core's own memory (a TPU's VMEM, marked
S(1)) is not traffic. Kernels of Pallas may read an operand more often than once, of which
the text says nothing: the figures are lower bounds.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
NAME = re.compile(r"%([\w.\-]+)")
COLLECTIVES = (
    *("all-gather", "all-reduce", "reduce-scatter", "all-to-all"),
    "collective-permute",
)
# Names for what is there already.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "copy-done"),
}
SLICES = {"dynamic-slice", "slice", "gather"}


class Instruction(NamedTuple):
    name: str
    kind: str  # of the result, as text
    op: str
    inside: str  # its brackets: operands, or the value of a constant
    rest: str  # behind them

    @property
    def operands(self) -> list[str]:
        return NAME.findall(self.inside)

    def called(self, role: str) -> str:
        found = re.search(rf"\b{role}=%([\w.\-]+)", self.rest)
        return found[1] if found else ""


class Traffic(NamedTuple):
    """Of one device, in one run of a program."""

    memory: float  # bytes read from HBM and written to it
    sent: dict[str, float]  # bytes sent to other devices, by kind of collective
    count: dict[str, float]  # and how many messages that is


def traffic(text: str) -> Traffic:
    """Of a program as `jax.stages.Compiled.as_text()` gives it."""
    parts, entry = _parsed(text)
    sent, count = defaultdict(float), defaultdict(float)
    memory = 0.0
    for times, instruction, scope in _run(parts, entry, 1):
        kind = instruction.op.removesuffix("-start")
        if kind in COLLECTIVES:
            sent[kind] += times * _sent(kind, instruction)
            count[kind] += times
        memory += times * _moved(instruction, scope, parts)
    return Traffic(memory, dict(sent), dict(count))


def _parsed(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """Computations by name, each its instructions by name; and which one is the entry."""
    parts: dict[str, dict[str, Instruction]] = {}
    entry, here = "", {}
    for line in text.splitlines():
        if line.endswith("{") and (line.startswith(("%", "ENTRY"))):
            name = NAME.search(line)
            assert name is not None
            here = parts[name[1]] = {}
            entry = name[1] if line.startswith("ENTRY") else entry
        elif " = " in line and line.startswith("  "):
            instruction = _instruction(line)
            here[instruction.name] = instruction
    return parts, entry


def _instruction(line: str) -> Instruction:
    """`  ROOT %name = type op(operands), rest`; a tuple's type has brackets and spaces."""
    left, _, right = line.strip().removeprefix("ROOT ").partition(" = ")
    end = _closing(right, 0) if right.startswith("(") else right.index(" ")
    kind, right = right[:end], right[end:].lstrip()
    start = right.index("(")
    end = _closing(right, start)
    inside, rest = right[start + 1 : end - 1], right[end:]
    return Instruction(left.lstrip("%"), kind, right[:start], inside, rest)


def _closing(text: str, start: int) -> int:
    """Behind the bracket that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i + 1
    raise ValueError(f"no end of {text[start : start + 80]!r}")


def _run(parts, name: str, times: int) -> Iterator[tuple[int, Instruction, dict]]:
    """Every instruction that runs, how often, and its computation; a fusion as one."""
    here = parts[name]
    for instruction in here.values():
        yield times, instruction, here
        if instruction.op == "while":
            body, condition = map(instruction.called, ("body", "condition"))
            again = times * _turns(instruction, parts[condition])
            yield from _run(parts, body, again)
        elif instruction.op in ("call", "async-start"):
            inner = instruction.called("to_apply") or instruction.called("calls")
            yield from _run(parts, inner, times)
        elif instruction.op == "fusion":  # a collective may be fused with its consumer
            for part in parts[instruction.called("calls")].values():
                if part.op.removesuffix("-start") in COLLECTIVES:
                    yield times, part, {}


def _turns(loop: Instruction, condition) -> int:
    """How often a loop runs: noted on it, or the bound that its condition compares with."""
    if noted := re.search(r'known_trip_count":{"n":"(\d+)"', loop.rest):
        return int(noted[1])
    constants = (line.inside for line in condition.values() if line.op == "constant")
    bounds = [int(value) for value in constants if value.isdigit()]
    if len(bounds) != 1:
        raise ValueError(f"loop {loop.name}: its condition has bounds {bounds}, need one")
    return bounds[0]


def _bytes(kind: str, everywhere: bool = False) -> float:
    """Of the arrays in a type that lie in HBM, or wherever they lie."""
    total = 0.0
    for dtype, shape, layout in ARRAY.findall(kind):
        if everywhere or "S(" not in layout:
            bits = 8 if dtype == "pred" else int(re.findall(r"\d+", dtype)[0])
            total += math.prod(int(n) for n in shape.split(",") if n) * bits / 8
    return total


def _moved(instruction: Instruction, here, parts) -> float:
    """Bytes that an instruction reads from HBM and writes there."""
    op = instruction.op
    inside = ("while", "call", "conditional", "async-start", *FREE)
    if op in inside or op.endswith(("-done", "-update")) or not here:
        return 0.0
    if op in ("copy-start", "slice-start"):  # to the core's memory or from it
        return max(_bytes(f"{x[0]}[{x[1]}]{x[2]}") for x in ARRAY.findall(instruction.kind))
    if op == "fusion":
        return _fused(instruction, parts)
    if op in SLICES:
        return 2 * _bytes(instruction.kind)
    if op == "dynamic-update-slice":
        return 2 * _bytes(here[instruction.operands[1]].kind)
    if op in ("all-gather-start", "collective-permute-start"):  # whose type names both
        return _bytes(instruction.kind)
    read = sum(_bytes(here[name].kind) for name in set(instruction.operands))
    return read + _bytes(instruction.kind)


def _fused(fusion: Instruction, parts) -> float:
    """A fusion reads its parameters, of some a slice alone, and writes its result, into
    some a slice alone."""
    inner = parts[fusion.called("calls")]
    into = {  # arrays that are updated in place, and the size of the update
        inner[part.operands[0]].kind: _bytes(inner[part.operands[1]].kind, everywhere=True)
        for part in inner.values()
        if part.op == "dynamic-update-slice"
    }
    read = sum(
        _read(part, inner, parts)
        for part in inner.values()
        if part.op == "parameter" and part.kind not in into
    )
    return read + sum(
        into.get(array[0], _bytes(array[0])) for array in ARRAY.finditer(fusion.kind)
    )


def _read(value: Instruction, inner, parts) -> float:
    """Bytes that are read of a value inside a fusion: its slices, where all its users take
    slices, themselves or in fusions of their own."""
    total, whole = 0.0, _bytes(value.kind)
    for user in inner.values():
        at = [i for i, name in enumerate(user.operands) if name == value.name]
        if not at:
            continue
        if user.op in SLICES and at == [0]:
            total += _bytes(user.kind, everywhere=True)
        elif user.op == "bitcast":
            total += _read(user, inner, parts)
        elif user.op == "fusion":
            deeper = parts[user.called("calls")]
            total += sum(
                _read(part, deeper, parts)
                for part in deeper.values()
                if part.op == "parameter" and part.inside in map(str, at)
            )
        elif user.op not in SLICES:  # there it is an index
            return whole
    return min(total, whole)


def _sent(kind: str, instruction: Instruction) -> float:
    """Bytes that one device sends, were they to go straight to their ends."""
    sizes = [
        _bytes(array[0], everywhere=True) for array in ARRAY.finditer(instruction.kind)
    ]
    if instruction.op.endswith("-start") and kind in ("all-gather", "collective-permute"):
        sizes = sizes[len(instruction.operands) : 2 * len(instruction.operands)]
    size, n = sum(sizes), _group(instruction.rest)
    if kind == "collective-permute":
        return size
    share = {"all-reduce": 2 / n, "reduce-scatter": 1.0}.get(kind, 1 / n)
    return size * share * (n - 1)


def _group(rest: str) -> int:
    """How many devices talk to each other: {{0,1},{2,3}}, [2,4]<=[8], or names of axes
    mesh['a'=2,'b'=4] {'b'}."""
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if table := re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest):
        return int(table[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return listed[1].count(",") + 1
    return 1
