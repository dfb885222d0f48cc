"""Operations by formula: what a trace counts, and what is published."""

import jax
import jax.numpy as jnp
import pytest

from w4d_jax.nets import lora
from w4d_jax.nets.dit import DiT, DiTConfig, wan_1_3b, wan_14b_i2v
from w4d_jax.nets.flops import counted, transformer

ADAPTED = r"blocks/(self|cross)/[qkvo]"


@pytest.mark.parametrize(
    ("image", "rank", "ffn_rank"), [(0, 0, 0), (3, 0, 0), (0, 4, 0), (0, 4, 4)]
)
def test_formula_is_what_a_trace_counts(image, rank, ffn_rank):
    sizes = {"in_channels": 5, "out_channels": 3, "width": 24, "heads": 2, "layers": 2}
    sizes |= {"ffn": 40, "frequencies": 8, "image_dim": 10 if image else 0}
    config = DiTConfig(**sizes)
    net = DiT(config)
    inputs = [jnp.zeros(s) for s in ((2, 3, 4, 6, 5), (2,), (2, 7, 24))]
    inputs += [jnp.zeros((2, image, 10))] if image else []
    variables = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    params = variables["params"]
    if rank:
        targets = ADAPTED + (r"|blocks/ffn_(in|out)" if ffn_rank else "")
        pairs = jax.eval_shape(
            lambda p: lora.init(jax.random.key(0), p, rank, targets), params
        )
        variables = variables | {"lora": pairs}
    traced = jax.make_jaxpr(net.apply)(variables, *inputs)
    made = transformer(
        config, tokens=18, context=7, image=image, rank=rank, ffn_rank=ffn_rank
    )
    assert counted(traced.jaxpr) == 2 * made.total


def test_published_sizes():
    """What others count for Wan2.1, in TFLOP of a forward pass."""
    big, small = DiTConfig(**wan_14b_i2v()), DiTConfig(**wan_1_3b())
    of_big = transformer(big, 35_100, 512, 257)
    assert of_big.total == pytest.approx(1874e12, rel=1e-3)
    assert of_big.attention / of_big.total == pytest.approx(0.55, abs=0.01)
    assert transformer(small, 35_100, 512).total == pytest.approx(318e12, rel=2e-3)
    assert of_big.step == 3 * of_big.total
    pairs = transformer(big, 35_100, 512, 257, rank=64)
    assert pairs.step < 0.87 * of_big.step


def test_loops_and_convolutions_count():
    def f(x, kernel):
        def step(x, _):
            return jax.lax.conv(x, kernel, (1, 1), "SAME"), None

        return jax.lax.scan(step, x, None, length=5)[0]

    jaxpr = jax.make_jaxpr(f)(jnp.zeros((2, 3, 8, 8)), jnp.zeros((3, 3, 3, 3))).jaxpr
    assert counted(jaxpr) == 5 * 2 * (2 * 3 * 8 * 8) * (3 * 3 * 3)
