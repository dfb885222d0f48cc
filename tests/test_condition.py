"""Masks and constant maps that condition the network, against the reference's numbers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w4d_jax.nets import condition
from w4d_jax.types import InputError

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "kinema4d"


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip("golden files are not here")
    return dict(np.load(GOLDEN / "masks.npz"))


def last(a):
    """Channels last: [B,C,T,H,W] -> [B,T,H,W,C]."""
    return np.moveaxis(a, 1, -1)


@pytest.mark.parametrize("i", [0, 1])
def test_masks_of_the_reference(golden, i):
    pixels, latent = golden[f"pixels_{i}"][..., 0], last(golden[f"latent_{i}"])[..., 0]
    np.testing.assert_array_equal(condition.latent_mask(pixels, (4, 8, 8)), latent)
    first = condition.first_frame_mask(latent.shape[1:], channels=4)
    np.testing.assert_array_equal(first, last(golden[f"first_frame_{i}"])[0])

    permutation = golden[f"soft_permutation_{i}"]
    order = np.zeros(latent.size, np.float32)
    order[np.flatnonzero(latent)[permutation]] = np.arange(len(permutation))
    soft = condition.soften_first(latent, order.reshape(latent.shape))
    both = np.concatenate([condition.mask_channels(soft, 4)] * 2, 3)
    np.testing.assert_array_equal(both, last(golden[f"soft_{i}"]))


@pytest.mark.parametrize("i", [0, 1])
def test_uniform_pointmap_of_the_reference(golden, i):
    expected = golden[f"uniform_{i}"]
    np.testing.assert_allclose(
        condition.uniform_pointmap(*expected.shape[:2]), expected, atol=1e-7
    )


def test_pointmap_scale_of_the_reference(golden):
    z, scaled = golden["affine_in"], golden["affine_pointmap_forward"]
    np.testing.assert_allclose(condition.scaled_pointmap(z), scaled, atol=2e-6)
    np.testing.assert_allclose(
        condition.unscaled_pointmap(z), golden["affine_pointmap_inverse"], atol=2e-6
    )
    np.testing.assert_allclose(condition.unscaled_pointmap(scaled), z, atol=2e-6)


def test_uniform_pointmap_corners():
    ramp = condition.uniform_pointmap(30, 45)
    np.testing.assert_allclose(ramp[0, 0], [0, 0, 1], atol=1e-7)
    np.testing.assert_allclose(ramp[-1, -1], [1, 1, 0], atol=1e-7)


def test_latent_mask_samples_space_and_unites_time():
    mask = np.zeros((1, 9, 8, 8), bool)
    mask[0, 3, 4, 0] = True  # a cell's first pixel, in the first group
    mask[0, 8, 1, 1] = True  # no cell's first pixel
    expected = np.zeros((1, 3, 2, 2))
    expected[0, 1, 1, 0] = 1
    np.testing.assert_array_equal(condition.latent_mask(mask, (4, 4, 4)), expected)
    assert condition.latent_mask(mask[:, :1], (4, 4, 4)).shape == (1, 1, 2, 2)
    with pytest.raises(InputError, match=r"frames=8: need 4k\+1 \(try 9\)"):
        condition.latent_mask(mask[:, :8], (4, 4, 4))


@pytest.mark.parametrize("ones", [0, 1, 9, 10, 19, 30, 997, 1200])
def test_soften_takes_the_exact_count_of_ones(ones):
    rng = np.random.default_rng(ones)
    mask = np.zeros(1200, np.float32)
    mask[rng.permutation(1200)[:ones]] = 1
    mask = mask.reshape(2, 3, 10, 20)
    draw = jax.jit(condition.soften)
    soft = np.asarray(draw(jax.random.key(0), mask))
    assert (soft == 0.5).sum() == int(0.1 * ones)
    assert (soft == 1).sum() == ones - int(0.1 * ones)
    assert (mask[soft == 0.5] == 1).all()
    if ones > 100:
        other = np.asarray(draw(jax.random.key(1), mask))
        assert (other != soft).any()


def test_condition_videos():
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), jnp.float32)
    held, grey = condition.held(image, 5), condition.then_grey(image, 5)
    assert held.shape == grey.shape == (2, 5, 4, 6, 3)
    np.testing.assert_array_equal(held, np.stack([image] * 5, 1))
    np.testing.assert_array_equal(grey[:, 0], image)
    assert not grey[:, 1:].any()
