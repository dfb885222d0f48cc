"""The same work in two libraries: equal weights and inputs, timed in turns.

Each side is a process of its own, so that neither's threads wait in the other's way, and so
that its peak memory is its own. Calls alternate, A B A B, and the fastest of each counts: a
neighbour on the machine slows both alike. The time that a call spends on its cores counts
as well: on one core (--cores 1) neighbours hardly change it.
"""

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.flops import transformer
from w4d_jax.nets.models import MODELS
from w4d_jax.nets.wan_names import wan
from w4d_jax.nets.weights import to_torch, tree

TEXT = 64  # rows of the prompt's embedding


class Size(NamedTuple):
    """A Wan2.1 text-to-video transformer of one size, and a batch of latents."""

    width: int = 384
    heads: int = 6
    layers: int = 6
    frames: int = 4
    side: int = 32  # latent rows and columns; patches are 2 x 2
    batch: int = 1

    @property
    def config(self) -> DiTConfig:
        sizes = {"width": self.width, "heads": self.heads, "layers": self.layers}
        return DiTConfig(**sizes, ffn=4 * self.width, text_dim=256)

    @property
    def tokens(self) -> int:
        return self.frames * (self.side // 2) ** 2

    @property
    def forward(self):
        """Operations of the whole batch; the text's two matrices are not counted."""
        made = transformer(self.config, self.tokens, TEXT)
        return made._replace(linear=self.batch * made.linear,
                             attention=self.batch * made.attention)  # fmt: skip

    def __str__(self) -> str:
        return (
            f"{self.layers} x {self.width}, {self.heads} heads, "
            f"{self.batch} x {self.frames}x{self.side}x{self.side} ({self.tokens} tokens)"
        )


class Lap(NamedTuple):
    seconds: float  # of the fastest call
    cpu: float  # seconds of all cores, of the call that took fewest
    start: float  # seconds of compiling and of the first call
    memory: float  # bytes, at the peak, beyond those of the imported libraries
    value: float  # that the first call returned, to compare


def weights(size: Size) -> dict[str, np.ndarray]:
    """Of every leaf by its path; small, and none of them at zero."""
    rng = np.random.default_rng(0)
    shapes = MODELS["wan"].shapes(size.config)
    return {
        path: np.float32(
            path.endswith("scale")
            + rng.normal(size=shape) * max(shape[-2:-1] or (50,)) ** -0.5
        )
        for path, shape in sorted(shapes.items())
    }


def inputs(size: Size) -> dict[str, np.ndarray]:
    """x f[B,T,H,W,C], time f[B], text f[B,S,E], target like x; channels last."""
    rng = np.random.default_rng(1)
    video = (size.batch, size.frames, size.side, size.side, size.config.in_channels)
    made = {"x": rng.normal(size=video), "time": np.linspace(900, 100, size.batch)}
    made |= {"text": rng.normal(size=(size.batch, TEXT, size.config.text_dim))}
    made |= {"target": rng.normal(size=video)}
    return {name: np.float32(x) for name, x in made.items()}


def ours(size: Size, remat: str = "none"):
    """(network, parameters, inputs) of w4d_jax."""
    import dataclasses

    from w4d_jax.nets.dit import Wan

    net = Wan(dataclasses.replace(size.config, remat=remat))
    return net, {"params": tree(weights(size))}, inputs(size)


def theirs(size: Size, compiled: bool):
    """(network, inputs) of diffusers; channels first. Its attention is torch's SDPA."""
    import diffusers
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = size.config
    net = diffusers.WanTransformer3DModel(
        num_attention_heads=config.heads, attention_head_dim=config.head_dim,
        in_channels=config.in_channels, out_channels=config.out_channels,
        text_dim=config.text_dim, freq_dim=config.frequencies, ffn_dim=config.ffn,
        num_layers=config.layers,
    )  # fmt: skip
    named = to_torch(wan(config), tree(weights(size)))
    net.load_state_dict({name: torch.tensor(x) for name, x in named.items()})
    given = {name: torch.tensor(x) for name, x in inputs(size).items()}
    for name in ("x", "target"):
        given[name] = given[name].moveaxis(-1, 1).contiguous()
    return (torch.compile(net) if compiled else net), given


def race(makers: dict[str, tuple], repeats: int, cores: int) -> dict[str, Lap]:
    """makers: name -> (function, its arguments); the function builds a side and returns a
    call of no arguments that does the work once, waits for it, and returns a number. Sides
    run on the same first `cores` of this machine."""
    fresh = multiprocessing.get_context("spawn")
    pipes, laps = {}, {}
    for name, (maker, *arguments) in makers.items():
        here, there = fresh.Pipe()
        process = fresh.Process(target=_side, args=(there, cores, maker, arguments))
        process.start()
        there.close()
        pipes[name] = process, here
    try:
        first = {name: here.recv() for name, (_, here) in pipes.items()}
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in pipes}
        for _ in range(repeats):
            for name, (_, here) in pipes.items():
                here.send(True)
                took[name].append(here.recv())
        for name, (_, here) in pipes.items():
            here.send(False)
            start, value = first[name]
            laps[name] = Lap(
                *map(min, zip(*took[name], strict=True)), start, here.recv(), value
            )
    finally:
        for process, _ in pipes.values():
            process.join(30)
            process.terminate()
    return laps


def _side(pipe, cores: int, maker: Callable, arguments) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    call = maker(*arguments)
    value = call()
    pipe.send((time.perf_counter() - start, value))
    while pipe.recv():
        start, busy = time.perf_counter(), time.process_time()
        call()
        pipe.send((time.perf_counter() - start, time.process_time() - busy))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send(1024.0 * (peak - before))


def product(side: int = 1024):
    """One large matrix product: what this machine reaches."""
    import jax.numpy as jnp

    a = jnp.ones((side, side))
    return lambda: float(jnp.dot(a, a)[0, 0])


def table(laps: dict[str, Lap], flops: float, tokens: int) -> str:
    """A row for each side but the product's, by whose operations a second of CPU MFU is."""
    reached = 2 * 1024**3 / laps["product"].cpu
    lines = [
        f"{flops / 1e9:,.1f} GFLOP; a matrix product: {reached / 1e9:.0f} GFLOP/s of CPU\n",
        "| | ms | CPU ms | tokens/s | MFU | MiB | start, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, lap in laps.items():
        if name == "product":
            continue
        cells = name, 1e3 * lap.seconds, 1e3 * lap.cpu, tokens / lap.seconds
        cells += flops / lap.cpu / reached, lap.memory / 2**20, lap.start
        row = "| {} | {:,.0f} | {:,.0f} | {:,.0f} | {:.0%} | {:,.0f} | {:.0f} |"
        lines.append(row.format(*cells))
    return "\n".join(lines)


def check_equal(laps: dict[str, Lap], tolerance: float = 1e-4) -> None:
    """That all sides but the product's found the same number."""
    found = {name: lap.value for name, lap in laps.items() if name != "product"}
    most = max(found.values())
    if most - min(found.values()) > tolerance * abs(most):
        raise SystemExit(f"the sides differ: {found}")
