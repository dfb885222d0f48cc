"""A run's programs, compiled for devices that need not be here, without their weights."""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from w4d_jax.plan.hlo import Traffic, traffic
from w4d_jax.train.program import Program


class Compiled(NamedTuple):
    """Bytes on one device."""

    arguments: float  # state, frozen parameters, batch
    temporaries: float
    peak: float  # of both and what is handed back, at the worst moment
    traffic: Traffic
    seconds: float  # that compiling took


class TooLarge(NamedTuple):
    """The compiler's verdict, in bytes of one device's memory."""

    needed: float
    there: float


def compile_step(program: Program, batch) -> Compiled | TooLarge:
    """One step of training; `batch` holds shapes."""
    state, frozen = program.abstract
    return _compile(program, program.update, state, frozen, _spread(program, batch))


def compile_draw(program: Program, clips) -> Compiled | TooLarge:
    """One draw of samples; `clips` holds shapes."""
    state, frozen = program.abstract
    return _compile(program, program.sample, state.ema, frozen, _spread(program, clips))


def _spread(program: Program, batch):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=program.spread), batch
    )


def _compile(program: Program, function: Callable, *shapes: Any) -> Compiled | TooLarge:
    key = jax.eval_shape(lambda: jax.random.key(0))
    whole = NamedSharding(program.mesh, P())
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=whole)
    start = time.perf_counter()
    with jax.set_mesh(program.mesh):
        lowered = function.lower(*shapes, key)
        try:
            made = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            found = re.search(r"Used ([\d.]+)G of ([\d.]+)G hbm", str(error))
            if not found:
                raise
            return TooLarge(*(float(size) * 2**30 for size in found.groups()))
    memory = made.memory_analysis()
    return Compiled(
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.peak_memory_in_bytes,
        traffic(made.as_text()),
        time.perf_counter() - start,
    )
