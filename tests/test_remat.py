"""Rematerialisation: the backward pass never runs self-attention forward again, whichever
kernel it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax._src.interpreters.partial_eval import dce_jaxpr
from jax.extend.core import jaxprs_in_params

from w4d_jax.nets import layout
from w4d_jax.nets.dit import DiT, DiTConfig

SIZES = {"in_channels": 4, "width": 16, "heads": 2, "layers": 1, "ffn": 32}


def slopes(remat, dtype="float32"):
    """(gradient of a loss, its arguments) of a small transformer, yet to be traced."""
    net = DiT(DiTConfig(**SIZES, frequencies=8, remat=remat, dtype=dtype))
    shapes = (1, 2, 4, 4, 4), (1,), (1, 3, 16)
    inputs = [jnp.float32(np.random.default_rng(0).normal(size=s)) for s in shapes]
    drawn = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: jnp.float32(0.3 * rng.normal(size=x.shape)), drawn)
    return jax.grad(lambda p: jnp.square(net.apply(p, *inputs)).sum()), params


def calls(gradient, params, name: str) -> int:
    """How often a program runs a primitive whose results it uses."""
    jaxpr = jax.make_jaxpr(gradient)(params).jaxpr
    return named(dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0], name)


def named(jaxpr, name: str) -> int:
    own = sum(equation.primitive.name == name for equation in jaxpr.eqns)
    inner = (p for equation in jaxpr.eqns for p in jaxprs_in_params(equation.params))
    return own + sum(named(part, name) for part in inner)


# Forward once, and in the backward pass two kernels; cross-attention is small, and runs
# forward a second time.
@pytest.mark.parametrize(("remat", "count"), [("full", 4 + 4), ("attention", 3 + 4)])
def test_splash_runs_forward_once(monkeypatch, remat, count):
    monkeypatch.setattr(layout, "platform", lambda: "tpu")
    gradient, params = slopes(remat)
    assert calls(gradient, params, "pallas_call") == count


@pytest.mark.parametrize(("remat", "count"), [("full", 2 + 2), ("attention", 1 + 2)])
def test_cudnn_runs_forward_once(monkeypatch, remat, count):
    monkeypatch.setattr(layout, "platform", lambda: "gpu")
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    gradient, params = slopes(remat, "bfloat16")
    assert calls(gradient, params, "dot_product_attention_fwd_wrapper") == count


def test_offloading_changes_no_number():
    (kept, params), (offloaded, _) = slopes("none"), slopes("offload")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        jax.jit(offloaded)(params),
        jax.jit(kept)(params),
    )
