"""A run's programs, compiled for devices that need not be here, without their weights."""

import re
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from w4d_jax.plan.hlo import Traffic, traffic
from w4d_jax.train.program import Program

Options = dict[str, float] | None  # of the compiler; None are a run's own


class Compiled(NamedTuple):
    """Bytes on one device."""

    arguments: float  # state, frozen parameters, batch
    temporaries: float
    peak: float  # of both and what is handed back, at the worst moment
    traffic: Traffic
    seconds: float  # that compiling took


# Without its search for the fastest form of each kernel the compiler took a seventh of the
# time for one layer of the 14B forward, and planned the same memory.
QUICK = {"exec_time_optimization_effort": -1.0}


class TooLarge(NamedTuple):
    """The compiler's verdict, in bytes of one device's memory."""

    needed: float
    there: float


def compile_step(program: Program, batch, options: Options) -> Compiled | TooLarge:
    """One step of training; `batch` holds shapes."""
    state, frozen = program.abstract
    shapes = state, frozen, _spread(program, batch)
    return _compile(program, program.update, shapes, options)


def compile_draw(program: Program, clips, options: Options) -> Compiled | TooLarge:
    """One draw of samples; `clips` holds shapes."""
    state, frozen = program.abstract
    shapes = state.ema, frozen, _spread(program, clips)
    return _compile(program, program.sample, shapes, options)


def _spread(program: Program, batch):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=program.spread), batch
    )


def _compile(program: Program, function: Callable, shapes, options: Options):
    key = jax.eval_shape(lambda: jax.random.key(0))
    whole = NamedSharding(program.mesh, P())
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=whole)
    start = time.perf_counter()
    with jax.set_mesh(program.mesh):
        lowered = function.lower(*shapes, key)
        try:
            made = lowered.compile(options)
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
