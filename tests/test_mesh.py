"""Sharding: every mesh gives what one device gives; who lies where; what does not fit."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs import REPO
from toy import devices

from w4d_jax.nets.attend import attend
from w4d_jax.train.shard import (
    batch_sharding,
    make_mesh,
    placement,
    repeated,
    shardings,
    table,
)
from w4d_jax.train.state import init_state, make_update
from w4d_jax.types import InputError

# 18 tokens, which neither 4 nor 8 divide. 8 heads divide by all that fits on 8 devices; 12
# do not, and their keys and values travel in a ring.
EIGHT = """
import itertools, math
import jax, jax.numpy as jnp, numpy as np
from w4d_jax.nets import vae
from w4d_jax.nets.dit import DiT, DiTConfig
from w4d_jax.train import shard

shard.SMALL = 2  # cut whatever can be cut
devices = jax.devices()
assert len(devices) == 8
rng = np.random.default_rng(0)
normal = lambda *shape: np.float32(rng.normal(size=shape))
time = 1000 * rng.random(8, np.float32)
batch = normal(8, 3, 4, 6, 4), time, normal(8, 5, 48)
target = normal(8, 3, 4, 6, 16)

def gradient(heads, remat):
    net = DiT(DiTConfig(in_channels=4, width=48, heads=heads, layers=2, ffn=64,
                        frequencies=8, remat=remat))
    shapes = jax.eval_shape(net.init, jax.random.key(0), *batch)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: np.float32(0.1 * rng.normal(size=x.shape)), shapes)

    @jax.jit
    def f(params, batch):
        loss = lambda p: jnp.square(net.apply(p, *batch) - target).mean()
        return jax.value_and_grad(loss)(params)

    return f, params

def compare(meshes, heads, remat):
    f, params = gradient(heads, remat)
    loss, grads = jax.device_get(f(params, batch))
    most = max(np.abs(g).max() for g in jax.tree.leaves(grads))
    for sizes in meshes:
        mesh = shard.make_mesh(dict(zip(shard.AXES, sizes)), devices)
        placed = jax.device_put(params, shard.shardings(mesh, params))
        cut = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(placed))
        assert (cut > 5) == (sizes[0] < 8), (sizes, cut)
        spread = jax.device_put(batch, shard.batch_sharding(mesh, 8))
        with jax.set_mesh(mesh):
            other, slopes = jax.device_get(f(placed, spread))
        np.testing.assert_allclose(other, loss, rtol=1e-5, err_msg=str(sizes))
        for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(slopes)):
            np.testing.assert_allclose(b, a, atol=1e-5 * most, err_msg=str(sizes))
        print(heads, sizes, flush=True)

powers = itertools.product((1, 2, 4, 8), repeat=4)
compare([s for s in powers if math.prod(s) == 8], heads=8, remat="none")
compare([(1, 1, 8, 1), (2, 1, 2, 2)], heads=12, remat="attention")

# The autoencoder, by rows of its pictures.
config = vae.VAEConfig(base=4, multipliers=(1, 2), blocks=1, temporal=(True,), latent=2,
                       mean=(0.0, 0.0), std=(1.0, 1.0))
params = jax.device_get(vae.init(jax.random.key(0), config))
video = normal(2, 5, 16, 8, 3)

@jax.jit
def coded(params, video):
    latent = vae.encode(params, config, video, chunk=1).mean
    return latent, vae.decode(params, config, latent, chunk=1)

want = coded(params, video)
mesh = shard.make_mesh({"data": 2, "seq": 4}, devices)
with jax.set_mesh(mesh):
    made = coded(params, jax.device_put(video, shard.batch_sharding(mesh, 2)))
for a, b in zip(want, made):
    np.testing.assert_allclose(jax.device_get(b), a, atol=1e-5)
"""


def test_every_mesh_of_eight_gives_what_one_device_gives():
    done = subprocess.run(
        [sys.executable, "-c", EIGHT],
        env=os.environ | devices(8) | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 20 + 2


def test_where_parameters_lie():
    mesh = make_mesh({"data": 1, "fsdp": 4, "seq": 2, "tensor": 2}, jax.devices()[:1] * 16)

    def cut(path, *shape):
        return tuple(placement(mesh, path, shape).spec)

    both = ("fsdp", "seq")
    for above in ("params/dit/", "opt/1/0/mu/dit/", "ema/dit/", "1/model/dit/"):
        assert cut(f"{above}blocks/self/q/kernel", 3, 512, 512) == (None, both, "tensor")
        assert cut(f"{above}blocks/ffn_out/kernel", 3, 64, 512) == (None, "tensor", both)
        # No rule: the longest axis, but never that of the layers.
        assert cut(f"{above}blocks/robot/kernel", 4096, 6, 512) == (None, None, both)
        assert cut(f"{above}patch/kernel", 1, 2, 2, 36, 512)[-1] == both
    assert cut("0/params/lora/dit/blocks/self/q/a", 3, 512, 64) == (None, both, None)
    assert cut("blocks/self/q/kernel", 3, 516, 511) == (None, "fsdp", None)  # what divides
    assert cut("head/out/bias", 64) == ()  # small: whole
    assert not any(cut("blocks/self/q/bias", 40, 5120))
    assert not any(cut("codec/params/encoder/in/kernel", 3, 3, 3, 96, 384))


def test_the_table_of_parameters():
    mesh = make_mesh({"fsdp": 8}, jax.devices()[:1] * 8)
    shapes = {"blocks": {"self": {"q": {"kernel": jnp.zeros((2, 512, 256))}}}}
    shapes = jax.eval_shape(lambda: shapes)
    placed = shardings(mesh, shapes)
    leaves = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed
    )
    head, line = table(leaves)
    assert head.split()[0] == "leaf"
    want = "blocks/self/q/kernel float32 2 512 256 - fsdpxseq tensor 1.00 0.12"
    assert line.split() == want.split()


def test_meshes_that_do_not_fit():
    devices = jax.devices()[:1]
    with pytest.raises(InputError, match="8 does not make 1 devices; data=-1"):
        make_mesh({"data": -1, "fsdp": 8}, devices)
    with pytest.raises(InputError, match="at most one of -1"):
        make_mesh({"data": -1, "fsdp": -1}, devices)
    with pytest.raises(InputError, match="need sizes >= 1 for"):
        make_mesh({"rows": 1}, devices)
    mesh = make_mesh({"data": 2, "fsdp": 4}, devices * 8)
    with pytest.raises(InputError, match=r"batch=6: need a multiple of 8.*try batch=8, or"):
        batch_sharding(mesh, 6)
    with pytest.raises(InputError, match=r"batch=8: need a multiple of 16, .*accumulate"):
        batch_sharding(mesh, 8, accumulate=2)
    x = jax.ShapeDtypeStruct((1, 4, 12, 8), jnp.float32)
    mesh = make_mesh({"tensor": 8}, devices * 8)
    with (
        jax.set_mesh(mesh),
        pytest.raises(InputError, match=r"heads=12: .* mesh.tensor=8 \(try tensor=4\)"),
    ):
        jax.eval_shape(attend, x, x, x)


def test_a_batch_too_small_goes_round():
    mesh = make_mesh({"data": 2, "fsdp": 4}, jax.devices()[:1] * 8)
    clips = repeated(mesh, {"K": np.arange(6).reshape(3, 2)})["K"]
    np.testing.assert_array_equal(clips[:, 0], [0, 2, 4, 0, 2, 4, 0, 2])


def test_parts_of_a_batch_add_up_to_the_batch():
    def loss(params, frozen, batch, key):
        error = jnp.square(batch["x"] @ params["w"]).mean()
        return error, {"error": error}

    tx = optax.sgd(0.1)
    rng = np.random.default_rng(0)
    params = {"w": jnp.float32(rng.normal(size=(3, 2)))}
    batch = {"x": jnp.float32(rng.normal(size=(12, 3)))}
    done = [
        jax.jit(make_update(loss, tx, 0.9, parts))(
            init_state(params, tx), {}, batch, jax.random.key(0)
        )
        for parts in (1, 3)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *done)
