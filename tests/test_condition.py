"""Masks and constant maps that condition the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w4d_jax.nets import condition
from w4d_jax.types import InputError

soften, inpaint = jax.jit(condition.soften), jax.jit(condition.inpaint)


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


def test_cells_with_a_pixel_of_a_mask():
    mask = np.zeros((1, 9, 8, 8), bool)
    mask[0, 0, 3, 7] = mask[0, 8, 4, 0] = mask[0, 5, 7, 3] = True
    expected = np.zeros((1, 3, 2, 2), bool)
    expected[0, 0, 0, 1] = expected[0, 2, 1, 0] = True
    np.testing.assert_array_equal(condition.cells_with(mask, (4, 4, 4)), expected)
    assert condition.cells_with(mask[:, :1], (4, 4, 4)).shape == (1, 1, 2, 2)


@pytest.mark.parametrize("ones", [0, 1, 9, 10, 19, 30, 997, 1200])
def test_soften_takes_the_exact_count_of_ones(ones):
    rng = np.random.default_rng(ones)
    mask = np.zeros(1200, np.float32)
    mask[rng.permutation(1200)[:ones]] = 1
    mask = mask.reshape(2, 3, 10, 20)
    soft = np.asarray(soften(jax.random.key(0), mask))
    assert (soft == 0.5).sum() == int(0.1 * ones)
    assert (soft == 1).sum() == ones - int(0.1 * ones)
    assert (mask[soft == 0.5] == 1).all()
    if ones > 100:
        other = np.asarray(soften(jax.random.key(1), mask))
        assert (other != soft).any()


def test_condition_videos():
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), jnp.float32)
    held, grey = condition.held(image, 5), condition.then_grey(image, 5)
    assert held.shape == grey.shape == (2, 5, 4, 6, 3)
    np.testing.assert_array_equal(held, np.stack([image] * 5, 1))
    np.testing.assert_array_equal(grey[:, 0], image)
    assert not grey[:, 1:].any()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (5, 7), (30, 45)])
def test_inpaint_continues_what_is_around(height, width):
    y, x = np.mgrid[:height, :width].astype(np.float32)
    picture = np.stack([x / width, y / height, 0.3 + 0 * x], -1)[None]
    known = np.ones((1, height, width, 1), np.float32)
    known[:, height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = 0
    filled = np.asarray(inpaint(picture * known, known))
    np.testing.assert_array_equal(filled * known, picture * known)
    np.testing.assert_allclose(filled, picture, atol=0.05)
    assert not np.asarray(inpaint(picture, 0 * known)).any()
