"""Codecs: exact inversion, causality, energy, and the sizes they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.fft import dctn

from w4d_jax.nets.codec import CosineCodec
from w4d_jax.nets.grid import latent_shape
from w4d_jax.types import InputError

encode = jax.jit(lambda codec, x: codec.encode(x))
decode = jax.jit(lambda codec, z: codec.decode(z))
STRIDES = [(4, 4, 4), (4, 8, 8), (1, 2, 2), (2, 4, 8)]


def video(frames=9, height=16, width=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (2, frames, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("stride", STRIDES)
def test_cosine_codec_inverts(stride):
    codec, x = CosineCodec(stride), video()
    z = encode(codec, x)
    assert z.shape == (2, *latent_shape(9, 16, 24, stride), codec.channels)
    np.testing.assert_allclose(decode(codec, z), x, atol=1e-6)


def test_a_block_is_transformed_as_by_scipy():
    block = video(frames=5, height=8, width=4)
    z = np.asarray(encode(CosineCodec((4, 8, 4)), block))[:, 1, 0, 0].reshape(2, 128, 3)
    expected = dctn(block[:, 1:], axes=(1, 2, 3), norm="ortho")
    np.testing.assert_allclose(z[:, 0], expected[:, 0, 0, 0], atol=1e-5)  # the mean first
    expected = np.sort(expected.reshape(2, 128, 3), 1)
    np.testing.assert_allclose(np.sort(z, 1), expected, atol=1e-5)


def test_frame_0_alone_decides_latent_frame_0_and_groups_do_not_mix():
    codec, x = CosineCodec(), video()
    z = np.asarray(encode(codec, x))
    np.testing.assert_array_equal(encode(codec, x[:, :1])[:, 0], z[:, 0])
    changed = x.copy()
    changed[:, 5:] += 0.1
    moved = np.abs(encode(codec, changed) - z).max((0, 2, 3, 4))
    np.testing.assert_array_equal(moved > 0, [False, False, True])


def test_energy_is_that_of_the_pixels():
    codec, x = CosineCodec(), video()
    z = np.asarray(encode(codec, x))
    later = np.square(z[:, 1:]).sum()
    np.testing.assert_allclose(later, np.square(x[:, 1:]).sum(), rtol=1e-5)
    first = np.square(z[:, 0]).sum()
    np.testing.assert_allclose(first, 4 * np.square(x[:, 0]).sum(), rtol=1e-5)


def test_white_noise_stays_white():
    noise = np.random.default_rng(2).normal(size=(4, 9, 64, 64, 3)).astype(np.float32)
    z = np.asarray(encode(CosineCodec(), noise))[:, 1:].reshape(-1, 192)
    covariance = z.T @ z / len(z)
    np.testing.assert_allclose(covariance, np.eye(192), atol=6 / np.sqrt(len(z)))


def test_a_still_video_has_one_latent_with_its_mean_first():
    x = np.repeat(video(frames=1), 9, 1) * 0.1 + np.float32([0.5, -0.2, 0.1])
    z = np.asarray(encode(CosineCodec(), x))
    np.testing.assert_allclose(z[:, 1:], np.repeat(z[:, :1], 2, 1), atol=1e-5)
    np.testing.assert_allclose(z[..., :3].mean((0, 1, 2, 3)), [4, -1.6, 0.8], atol=0.1)
    assert np.square(z[..., :3]).sum() > 0.9 * np.square(z).sum()


def test_noise_in_the_first_group_is_projected_away():
    codec, x = CosineCodec(), video(frames=5)
    z = encode(codec, x)
    z = z.at[:, 0, ..., -3:].add(1.0)  # the highest temporal and spatial frequency
    np.testing.assert_allclose(decode(codec, z), x, atol=1e-6)


def test_gradients_pass():
    x = video(frames=1, height=4, width=4)

    def energy(codec, x):
        return jnp.sum(encode(codec, x) ** 2)

    gradient = jax.grad(energy, argnums=1)(CosineCodec(), x)
    np.testing.assert_allclose(gradient, 8 * x, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((48, 16, 16), r"frames=48: need 4k\+1 \(try 49\)"),
        ((0, 16, 16), r"frames=0: need 4k\+1 \(try 1\)"),
        ((5, 18, 16), r"height=18: need a multiple of 4 \(try 16\)"),
        ((5, 16, 2), r"width=2: need a multiple of 4 \(try 4\)"),
    ],
)
def test_wrong_sizes_are_named_with_the_fix(size, message):
    with pytest.raises(InputError, match=message):
        CosineCodec().encode(np.zeros((1, *size, 3), np.float32))
