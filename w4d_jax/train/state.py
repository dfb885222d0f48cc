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


def started(state: TrainState, params) -> TrainState:
    """A state at step 0 whose parameters are others than those it was made with."""
    if params is state.params:
        return state
    return state._replace(params=params, ema=jax.tree.map(jnp.copy, params))


def make_update(
    loss: Callable, tx: optax.GradientTransformation, ema_decay: float, accumulate: int = 1
) -> Callable:
    """update(state, frozen, batch, key) -> (state, metrics).

    loss(params, frozen, batch, key) -> (f32[], metrics); frozen are the leaves that do not
    train (the base model under a LoRA), key the run's key: the step is folded in here, so
    that a resumed run draws what the unbroken one would have drawn. The gradient is the
    mean over `accumulate` parts of the batch, one after the other. Where loss or gradient
    is not a finite number, the step counts and changes nothing.
    """
    gradient = jax.value_and_grad(loss, has_aux=True)

    def update(state: TrainState, frozen, batch, key):
        key = jax.random.fold_in(key, state.step)
        if accumulate == 1:
            (value, metrics), grads = gradient(state.params, frozen, batch, key)
        else:
            (value, metrics), grads = over_parts(state.params, frozen, batch, key)
        updates, opt = tx.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = average(state.ema, params, state.step, ema_decay)
        norm = optax.tree.norm(grads)
        well = jnp.isfinite(value) & jnp.isfinite(norm)
        new, old = (params, ema, opt), (state.params, state.ema, state.opt)
        kept = jax.tree.map(lambda new, old: jnp.where(well, new, old), new, old)
        metrics = {"loss": value, "grad_norm": norm, **metrics}
        return TrainState(state.step + 1, *kept), metrics

    def over_parts(params, frozen, batch, key):
        def add(total, part):
            new = gradient(params, frozen, *part)
            return jax.tree.map(jnp.add, total, new), None

        def apart(x):
            """f[B,...] -> f[A,B/A,...]: part i holds every A-th example from i on, so that
            no example leaves the device that it lies on."""
            return x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1)

        parts = jax.tree.map(apart, batch), jax.random.split(key, accumulate)
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(gradient, params, frozen, *first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, parts)
        return jax.tree.map(lambda x: x / accumulate, total)

    return update
