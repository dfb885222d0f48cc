"""What training carries from step to step, and one step of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from w4d_jax.train.optim import average


class TrainState(NamedTuple):
    step: Any  # i32[] updates done
    params: Any  # the trainable tree, float32
    ema: Any  # its running average: what is sampled and exported
    opt: Any  # optax state


def init_state(params, tx: optax.GradientTransformation) -> TrainState:
    """A state at step 0 whose average is a copy, so that both buffers can be donated."""
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, tx.init(params))


def make_update(
    loss: Callable, tx: optax.GradientTransformation, ema_decay: float
) -> Callable:
    """update(state, frozen, batch, key) -> (state, metrics).

    loss(params, frozen, batch, key) -> (f32[], metrics); frozen are the leaves that do not
    train (the base model under a LoRA), key the run's key: the step is folded in here, so
    that a resumed run draws what the unbroken one would have drawn.
    """

    def update(state: TrainState, frozen, batch, key):
        key = jax.random.fold_in(key, state.step)
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, metrics), grads = gradient(state.params, frozen, batch, key)
        updates, opt = tx.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = average(state.ema, params, state.step, ema_decay)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads), **metrics}
        return TrainState(state.step + 1, params, ema, opt), metrics

    return update
