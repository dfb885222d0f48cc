"""The video autoencoder: causality, chunks, sizes, precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import jit

from w4d_jax.nets import vae
from w4d_jax.nets.codec import WanCodec
from w4d_jax.nets.vae_names import vae as names
from w4d_jax.types import InputError

encode = jit(vae.encode, static_argnums=(1, 3))
decode = jit(vae.decode, static_argnums=(1, 3))


def test_full_size_has_wan_s_parameters():
    config = vae.VAEConfig()
    abstract = jax.eval_shape(partial(vae.init, config=config), jax.random.key(0))
    sizes = {
        part: sum(a.size for a in jax.tree.leaves(abstract[part])) for part in abstract
    }
    assert sum(sizes.values()) == 126_892_531
    assert {row.ours for row in names(config)} == {
        "/".join(k.key for k in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(abstract)
    }


# A small network of other proportions than Wan's.
TINY = vae.VAEConfig(base=4, multipliers=(1, 2, 2), blocks=1, temporal=(True, True))


def random_params(config):
    """No leaf is zero or one, which would hide mistakes."""
    rng = np.random.default_rng(1)
    abstract = jax.eval_shape(partial(vae.init, config=config), jax.random.key(0))
    return jax.tree.map(lambda a: np.float32(0.2 * rng.normal(size=a.shape)), abstract)


@pytest.fixture(scope="module")
def tiny():
    return random_params(TINY)


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (2, 13, 8, 12, 3)).astype(np.float32)


def test_chunks_equal_the_whole(tiny, clip):
    """Chunks of 2, which do not divide the three latent frames after the first."""
    whole, parts = encode(tiny, TINY, clip), encode(tiny, TINY, clip, 2)
    assert whole.mean.shape == (2, 4, 2, 3, 16)
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-5)
    np.testing.assert_allclose(parts.logvar, whole.logvar, atol=1e-5)
    decoded = decode(tiny, TINY, whole.mean)
    assert decoded.shape == clip.shape
    np.testing.assert_allclose(decode(tiny, TINY, whole.mean, 2), decoded, atol=1e-5)


def test_nothing_looks_ahead(tiny, clip):
    changed = clip.copy()
    changed[:, 5:] *= -1
    whole, other = encode(tiny, TINY, clip).mean, encode(tiny, TINY, changed).mean
    np.testing.assert_array_equal(other[:, :2], whole[:, :2])
    assert np.abs(other[:, 2:] - whole[:, 2:]).max() > 1e-3
    ahead = whole.at[:, 2:].add(1.0)
    np.testing.assert_array_equal(
        decode(tiny, TINY, ahead)[:, :5], decode(tiny, TINY, whole)[:, :5]
    )


def test_latent_frame_0_is_the_code_of_the_first_picture(tiny, clip):
    picture = encode(tiny, TINY, clip[:, :1]).mean
    np.testing.assert_allclose(encode(tiny, TINY, clip, 2).mean[:, :1], picture, atol=1e-6)
    np.testing.assert_allclose(encode(tiny, TINY, clip).mean[:, :1], picture, atol=1e-6)


def test_codec_normalises_samples_and_refuses_wrong_sizes(tiny, clip):
    codec = WanCodec(tiny, TINY, chunk=2)
    assert codec.stride == (4, 4, 4) and codec.channels == 16
    posterior = encode(tiny, TINY, clip, 2)
    z = jit(lambda codec, x: codec.encode(x))(codec, clip)
    np.testing.assert_allclose(z, vae.normalised(posterior.mean, TINY), atol=1e-5)
    np.testing.assert_allclose(vae.denormalised(z, TINY), posterior.mean, atol=1e-5)
    with pytest.raises(InputError, match=r"frames=12: need 4k\+1 \(try 13\)"):
        codec.encode(clip[:, :12])
    with pytest.raises(InputError, match=r"width=10: need a multiple of 4"):
        codec.encode(clip[:, :, :, :10])


def test_initial_activations_keep_their_size(clip):
    params = vae.init(jax.random.key(0), TINY)
    kernel = params["encoder"]["middle"]["block0"]["conv1"]["kernel"]
    np.testing.assert_allclose(np.square(kernel).mean() * 27 * 8, 1, rtol=0.1)
    assert 0.1 < np.std(encode(params, TINY, clip).mean) < 3


def test_samples_have_the_posterior_s_moments():
    posterior = vae.Posterior(jnp.full((4000,), 2.0), jnp.full((4000,), np.log(0.25)))
    drawn = posterior.sample(jax.random.key(0))
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [2, 0.5], atol=0.03)


def test_bfloat16_stays_near_float32(tiny, clip):
    """0.005 of the latent here and 0.008 of the picture; weights of bfloat16 decide it."""
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), tiny)
    exact, rounded = encode(tiny, TINY, clip), encode(half, TINY, clip.astype("bfloat16"))
    assert rounded.mean.dtype == jnp.bfloat16
    pictures = (
        decode(tiny, TINY, exact.mean),
        decode(half, TINY, exact.mean.astype("bfloat16")),
    )
    for a, b in (*zip(exact, rounded, strict=True), pictures):
        gap = np.linalg.norm(np.float32(b) - a) / np.linalg.norm(a)
        assert 1e-4 < gap < 0.02
    codec = WanCodec(half, TINY)
    latent = jax.eval_shape(codec.encode, clip, jax.random.key(0))
    assert latent.dtype == jnp.float32 and latent.shape == (2, 4, 2, 3, 16)
    assert jax.eval_shape(codec.decode, latent).dtype == jnp.float32


def test_gradients_reach_every_parameter(clip):
    config = vae.VAEConfig(base=4, multipliers=(1, 2), blocks=1, temporal=(True,))

    @jit
    @jax.grad
    def gradient(params):
        posterior = vae.encode(params, config, clip[:1, :5])
        z = posterior.mean + jnp.exp(0.5 * posterior.logvar)
        return jnp.mean((vae.decode(params, config, 0.1 * z) - clip[:1, :5]) ** 2)

    sizes = jax.tree.map(lambda g: float(jnp.abs(g).max()), gradient(random_params(config)))
    assert all(np.isfinite(n) and n > 0 for n in jax.tree.leaves(sizes)), sizes
