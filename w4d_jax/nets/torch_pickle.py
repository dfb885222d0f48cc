"""What a PyTorch checkpoint says of its tensors, without running it.

A pickle is a program for a small stack machine, and Python's own machine may call anything.
This one knows the few instructions that plain data need, and of all names in the world only
those of a tensor's parts, which it writes down and never calls. Everything else is refused.
"""

import pickletools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from w4d_jax.types import InputError


class Storage(NamedTuple):
    """A run of numbers, in an entry of its own of the archive."""

    key: str
    dtype: np.dtype
    size: int


class View(NamedTuple):
    """A tensor: a storage, and where in it the elements lie."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements


class Name(NamedTuple):
    """A global that the pickle speaks of."""

    module: str
    name: str


DTYPES = {
    Name("torch", f"{kind}Storage"): np.dtype(dtype)
    for kind, dtype in {
        "Double": "f8",
        "Float": "f4",
        "Half": "f2",
        "BFloat16": jnp.bfloat16,
        "Long": "i8",
        "Int": "i4",
        "Short": "i2",
        "Char": "i1",
        "Byte": "u1",
        "Bool": "?",
    }.items()
}
TENSOR = Name("torch._utils", "_rebuild_tensor_v2")
PARAMETER = Name("torch._utils", "_rebuild_parameter")
DICT = Name("collections", "OrderedDict")
ALLOWED = {TENSOR, PARAMETER, DICT, *DTYPES}
MARK = object()

PUSH = {
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "BINFLOAT", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def read_pickle(data: bytes) -> Any:
    """The object that a pickle describes: dicts, lists, tuples, numbers, strings, `View`s.

    Raises InputError for anything else in it, in one line and nothing having run.
    """
    machine = Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    # A damaged pickle trips genops, the stack or a conversion in a dozen ways.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"its pickle is damaged ({error})") from error
    raise InputError("its pickle has no end")


class Machine:
    """The stack, and what was set aside of it."""

    def __init__(self):
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument) -> None:
        stack = self.stack
        if opcode in ("PROTO", "FRAME"):
            return
        if opcode in PUSH:
            stack.append(argument)
        elif opcode in CONSTANTS:
            stack.append(CONSTANTS[opcode])
        elif opcode == "MARK":
            stack.append(MARK)
        elif opcode == "EMPTY_DICT":
            stack.append({})
        elif opcode == "EMPTY_LIST":
            stack.append([])
        elif opcode == "EMPTY_TUPLE":
            stack.append(())
        elif opcode == "TUPLE":
            stack.append(tuple(self.marked()))
        elif opcode in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(opcode[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif opcode == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self.put(key, value)
        elif opcode == "SETITEMS":
            items = self.marked()
            for key, value in zip(items[::2], items[1::2], strict=True):
                self.put(key, value)
        elif opcode == "APPEND":
            value = stack.pop()
            stack[-1].append(value)
        elif opcode == "APPENDS":
            items = self.marked()
            stack[-1].extend(items)
        elif opcode in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif opcode == "GLOBAL":
            stack.append(_named(*argument.split(" ", 1)))
        elif opcode == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            stack.append(_named(module, name))
        elif opcode == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif opcode == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_made(function, arguments))
        elif opcode == "BUILD":
            stack.pop()  # attributes of a state dict: versions of modules
            if not isinstance(stack[-1], dict):
                raise InputError("it holds objects, need a dict of tensors")
        else:
            raise InputError(f"it holds more than tensors (pickle instruction {opcode})")

    def marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is MARK:
                items = self.stack[i + 1 :]
                del self.stack[i:]
                return items
        raise InputError("its pickle is damaged (no mark)")

    def put(self, key, value) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise InputError("it holds objects, need a dict of tensors")
        target[key] = value


def _named(module: str, name: str) -> Name:
    found = Name(module, name)
    if found not in ALLOWED:
        raise InputError(
            f"it asks for {module}.{name}; only tensors are read, no code: save the "
            "state dict alone, or convert it to .safetensors where it comes from"
        )
    return found


def _storage(entry) -> Storage:
    kind, dtype, key, _, size = entry
    if kind != "storage" or dtype not in DTYPES:
        raise InputError(f"its storage is of an unknown kind ({str(entry)[:80]})")
    return Storage(str(key), DTYPES[dtype], int(size))


def _made(function, arguments) -> Any:
    if function == DICT and not arguments:
        return {}
    if function == PARAMETER:
        return arguments[0]
    if function != TENSOR or not isinstance(arguments[0], Storage):
        raise InputError(f"it builds something that is no tensor ({function})")
    storage, offset, shape, strides = arguments[:4]
    shape, strides = tuple(map(int, shape)), tuple(map(int, strides))
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    count = int(np.prod(shape, dtype=object))
    inside = offset >= 0 and all(n >= 0 for n in shape) and all(s >= 0 for s in strides)
    if not inside or count > storage.size or (count and last >= storage.size):
        raise InputError(
            f"a tensor of shape {list(shape)} lies outside its {storage.size} numbers"
        )
    return View(storage, int(offset), shape, strides)
