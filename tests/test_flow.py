"""Rectified flow: equalities between readings, losses, noise levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w4d_jax.train import flow


@pytest.fixture
def draw():
    rng = np.random.default_rng(0)
    x0, eps, anchor = rng.normal(size=(3, 4, 2, 3, 5)).astype(np.float32)
    return x0, eps, anchor, np.float32([1e-3, 0.3, 0.7, 1.0])


def test_noised_ends_and_middle(draw):
    x0, eps, _, _ = draw
    assert np.array_equal(flow.noised(x0, eps, jnp.zeros(4)), x0)
    assert np.array_equal(flow.noised(x0, eps, jnp.ones(4)), eps)
    np.testing.assert_allclose(
        flow.noised(x0, eps, jnp.full(4, 0.5)), (x0 + eps) / 2, atol=1e-6
    )


@pytest.mark.parametrize("prediction", ["velocity", "clean", "residual"])
def test_a_perfect_network_is_read_as_such_by_every_prediction(draw, prediction):
    x0, eps, anchor, sigma = draw
    x = flow.noised(x0, eps, sigma)
    output = {"velocity": eps - x0, "clean": x0, "residual": x0 - anchor}[prediction]
    clean, velocity = flow.estimate(prediction, output, x, sigma, anchor)
    np.testing.assert_allclose(clean, x0, atol=1e-6)
    np.testing.assert_allclose(velocity, eps - x0, atol=5e-4)  # / 1e-3 at the least noise
    assert flow.clean_loss(clean, x0, sigma).max() < 1e-12
    assert flow.velocity_loss(velocity, x0, eps).max() < 1e-6


def test_an_unknown_prediction_is_an_error(draw):
    with pytest.raises(ValueError, match="need velocity, clean or residual"):
        flow.estimate("noise", draw[0], draw[0], draw[3])


def test_clean_loss_without_floor_is_the_velocity_loss(draw):
    x0, eps, guess, sigma = draw
    sigma = np.maximum(sigma, 0.1)
    x = flow.noised(x0, eps, sigma)
    clean, velocity = flow.estimate("clean", guess, x, sigma)
    expected = flow.velocity_loss(velocity, x0, eps)
    np.testing.assert_allclose(flow.clean_loss(clean, x0, sigma, 0.1), expected, rtol=1e-4)
    plain = np.mean((guess - x0) ** 2, (1, 2, 3))
    np.testing.assert_allclose(flow.clean_loss(clean, x0, sigma), plain, rtol=1e-5)


def test_weight_is_normalised_and_selects(draw):
    x0, eps, guess, _ = draw
    half = np.float32([0, 0, 1, 1, 1])  # the last axis stands for the joint width
    left_out = guess.copy()
    left_out[..., :2] = 1e3
    expected = flow.velocity_loss(guess[..., 2:], x0[..., 2:], eps[..., 2:])
    np.testing.assert_allclose(
        flow.velocity_loss(left_out, x0, eps, 7 * half), expected, rtol=1e-5
    )


def test_half_precision_losses_are_summed_in_float32():
    x0 = jnp.zeros((1, 4096), jnp.bfloat16)
    loss = flow.clean_loss(jnp.full_like(x0, 0.1), x0, jnp.ones(1))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, [float(jnp.bfloat16(0.1)) ** 2], rtol=1e-5)


def test_shift_keeps_the_ends_and_order():
    sigma = np.linspace(0, 1, 11)
    assert np.array_equal(flow.shifted(sigma, 1.0), sigma)
    moved = flow.shifted(sigma, 3.0)
    assert moved[0] == 0 and moved[-1] == 1
    assert (np.diff(moved) > 0).all() and (moved[1:-1] > sigma[1:-1]).all()
    np.testing.assert_allclose(flow.shifted(moved, 1 / 3), sigma, atol=1e-12)


def test_noise_levels_lie_inside_and_cover_the_range():
    key = jax.random.key(0)
    u = np.sort(flow.strata(key, 64))
    np.testing.assert_allclose(np.diff(u), 1 / 64, atol=1e-6)
    uniform = np.asarray(flow.uniform_sigma(key, 4096))
    assert uniform.min() >= 0.001 - 1e-6 and uniform.max() <= 1
    np.testing.assert_allclose(
        np.quantile(uniform, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=2e-3
    )
    middle = np.asarray(flow.logit_normal_sigma(key, 4096, mean=np.log(3.0)))
    assert middle.min() > 0 and middle.max() < 1
    np.testing.assert_allclose(np.median(middle), 0.75, atol=2e-3)  # sigmoid(log 3)


def test_table_draws_are_pairs_of_the_table():
    table = flow.training_table(shift=3.0)
    timesteps, sigmas = flow.table_sigma(jax.random.key(1), 256, table)
    assert (
        set(np.asarray(sigmas)) <= set(table.sigmas) and len(set(np.asarray(sigmas))) > 150
    )
    np.testing.assert_allclose(timesteps, 1000 * sigmas, rtol=1e-6)
