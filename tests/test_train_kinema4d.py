"""Kinema4D as a task: what it learns from, what it is told, and what it must not see."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import batch_of, write_config, write_noise

from w4d_jax.train.config import load_config
from w4d_jax.train.kinema4d import build
from w4d_jax.train.optim import OptimizerConfig, optimizer
from w4d_jax.train.state import init_state, make_update


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("kinema4d")
    return write_config(home / "config.py", write_noise(home / "train", [0, 1]), home)


@pytest.fixture(scope="module")
def batch(home):
    """Noise, and a hand before the camera that comes down, shuts and rises."""
    batch = batch_of(home.parent / "train")
    eye = batch["cam_from_world"][:, :, :3, 3]  # these cameras do not turn
    actions = np.tile(np.float32([0, 0, 0, 1, 0, 0, 0, 0]), (2, 5, 1))
    actions[..., :3] = [[0, 0, 1.3], [0, 0, 1], [0, 0, 1], [0.1, 0, 1.1], [0.2, 0, 1.2]]
    actions[..., :3] -= eye
    actions[..., 7] = [0.08, 0.08, 0, 0, 0]
    return batch | {"actions": actions}


def method(home, **changes):
    """The task of the smallest config; changes: group={key: value}."""
    config = load_config(str(home))
    with config.unlocked():
        for group, values in changes.items():
            config[group].update(values)
    return build(config)


def drawn(task):
    """(params, frozen) without a zero among them: what starts at zero hides what lies
    behind it. The codec here has no weights, so that `frozen` has no leaf."""
    rng = np.random.default_rng(0)
    shapes, frozen = jax.eval_shape(task.init, jax.random.key(0))
    assert not jax.tree.leaves(frozen)
    draw = jax.tree.map(lambda x: jnp.float32(0.1 * rng.normal(size=x.shape)), shapes)
    return draw, frozen


def other_robot(batch):
    return batch | {
        "robot_depth": batch["robot_depth"][..., ::-1] * 1.3,
        "robot_rgb": batch["robot_rgb"][..., ::-1, :] // 2,
        "actions": batch["actions"][:, ::-1],
    }


def test_learns_without_an_image_of_the_robot(home, batch):
    """Variant "pm", the paper's; test_train.py trains "act"."""
    task = method(home, model={"variant": "pm"}, condition={"outcomes": False})
    params, frozen = drawn(task)
    tx = optimizer(OptimizerConfig(lr=3e-3, warmup=1), 3)
    update = jax.jit(make_update(task.loss, tx, 0.9))
    state = init_state(params, tx)
    losses = []
    for _ in range(3):
        state, metrics = update(state, frozen, batch, jax.random.key(1))
        losses.append(float(metrics["loss"]))
        state = state._replace(step=jnp.zeros((), jnp.int32))  # the same noise again
    assert losses[2] < losses[1] <= losses[0]


DRAWN = {"fill": "drawn", "geometry": "ground", "outcomes": True}


@pytest.mark.parametrize("variant, told", [("pm", {}), ("act", {}), ("act", DRAWN)])
def test_a_withheld_robot_leaves_no_trace(home, batch, variant, told):
    """Not one bit of the loss hangs on the robot that a sample trains without."""

    def loss_of(drop):
        condition = {"drop": drop} | told
        task = method(home, model={"variant": variant}, condition=condition)
        params, frozen = drawn(task)
        key = jax.random.key(3)
        return jax.jit(lambda batch: task.loss(params, frozen, batch, key)[0])

    withheld, given = loss_of(1.0), loss_of(0.0)
    assert withheld(batch) == withheld(other_robot(batch))
    assert given(batch) != given(other_robot(batch))


def test_who_never_learned_of_the_robot_draws_without_it(home, batch):
    def drawn_by(drop):
        task = method(home, condition={"drop": drop} | DRAWN, sampler={"steps": 1})
        params, frozen = drawn(task)
        sample = jax.jit(task.sample)

        def draws(batch):
            made = sample(params, frozen, batch, jax.random.key(0)).rgb
            return np.concatenate([made, task.guess(frozen, batch).rgb])

        return draws

    never, always = drawn_by(1.0), drawn_by(0.0)
    np.testing.assert_array_equal(never(batch), never(other_robot(batch)))
    assert not np.array_equal(always(batch), always(other_robot(batch)))


@pytest.mark.parametrize(
    "fill, outcomes", [("grey", 0), ("held", 0), ("drawn", 0), ("drawn", 1)]
)
@pytest.mark.parametrize("geometry", ["ramp", "ground"])
def test_nothing_from_the_future(home, batch, fill, outcomes, geometry):
    told = {"fill": fill, "geometry": geometry, "outcomes": bool(outcomes)}
    task = method(home, condition=told)
    future = batch | {
        "rgb": np.concatenate([batch["rgb"][:, :1], 255 - batch["rgb"][:, 1:]], 1),
        "depth": 2 * batch["depth"] + 1,
    }
    only = {k: v for k, v in batch.items() if k != "depth"} | {"rgb": batch["rgb"][:, :1]}
    known = task.joint.known(batch)
    for other in (future, only):
        jax.tree.map(np.testing.assert_array_equal, task.joint.known(other), known)
    moved = task.joint.known(other_robot(batch))
    assert not np.array_equal(moved.robot, known.robot)


class Gates:
    """A network of no weights that puts out a gate alone, f[...] for every cell."""

    def __init__(self, net, gates):
        self.config, self.gates = net.config, jnp.asarray(gates, jnp.float32)

    def apply(self, variables, x, condition, robot, time, image, gain=1.0):
        gates = jnp.broadcast_to(self.gates, x.shape[:-1])[..., None]
        return jnp.concatenate([gates, jnp.zeros_like(x)], -1)


def test_a_gate_says_whether_nothing_is_taken_along(home, batch):
    flow = {"prediction": "residual"}
    task = method(home, condition=DRAWN, flow=flow, sampler={"steps": 1})
    _, frozen = drawn(task)
    left, guess = task.left(frozen, batch), task.guess(frozen, batch)
    for gate, want in ((1.0, left), (0.6, left), (0.4, guess), (0.0, guess)):
        gated = dataclasses.replace(task, net=Gates(task.net, gate))
        made = gated.sample({}, frozen, batch, jax.random.key(0))
        np.testing.assert_allclose(made.rgb, want.rgb, atol=1e-4)
        np.testing.assert_allclose(made.pointmap, want.pointmap, atol=1e-4)
    assert np.abs(left.rgb - guess.rgb).max() > 0.1
    cells = np.random.default_rng(0).random(guess.latent.shape[:-1])
    mixed = dataclasses.replace(task, net=Gates(task.net, cells))
    made = np.asarray(mixed.sample({}, frozen, batch, jax.random.key(0)).latent)
    either = [
        np.abs(made - np.asarray(video.latent)).max((2, 3, 4)) < 1e-4
        for video in (left, guess)
    ]
    assert (either[0] | either[1]).all()  # each frame is one of the two, whole
    before = method(home, condition=DRAWN | {"outcomes": False}, flow=flow)
    untouched = before.guess(frozen, batch)
    np.testing.assert_allclose(left.rgb, untouched.rgb, atol=1e-4)


def test_gates_learn_how_far_changes_come_true(home, batch):
    """Their loss is that of the changes alone, by formula, and no other reaches them."""
    flow = {"prediction": "residual", "robot_weight": 0.3}
    task = method(home, condition=DRAWN, flow=flow)
    _, frozen = drawn(task)
    joint = task.joint.bound(frozen)
    known = joint.known(batch)
    latents = joint.encode(batch), joint.anchor(known), *joint.changes(known)
    x0, anchor, change = (np.asarray(x, np.float64) for x in latents)
    weight = np.where(joint.robot_cells(batch) > 0, 0.3, 1.0)
    weight = np.broadcast_to(weight, x0.shape)
    off = x0 - anchor - 0.3 * change

    def mean(x):
        each = (weight * x).sum((1, 2, 3, 4)) / weight.sum((1, 2, 3, 4))
        return each.mean()

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def loss(gate):
        gated = dataclasses.replace(task, net=Gates(task.net, gate))
        return gated.loss({}, frozen, batch, jax.random.key(0))

    (total, errors), slope = loss(0.3)
    assert errors["outcome_error"] == pytest.approx(mean(off**2), rel=1e-4)
    assert total == pytest.approx(mean((x0 - anchor) ** 2) + mean(off**2), rel=1e-4)
    assert slope == pytest.approx(mean(-2 * off * change), rel=1e-3)


def test_encode_decode(home, batch):
    """The codec loses nothing, so the joint latent of a clip decodes to the clip."""
    task = method(home)
    video = task.joint.decode(task.joint.encode(batch))
    np.testing.assert_allclose((video.rgb + 1) * 127.5, batch["rgb"], atol=1e-2)


class Counted:
    """A network of no weights that counts its forwards."""

    def __init__(self, net, scale=0.3):
        self.config, self.calls, self.scale = net.config, 0, scale

    def apply(self, variables, x, condition, robot, time, image, gain=1.0):
        self.calls += 1
        seen = gain * robot.mean() + jnp.cos(time / 1000)[:, None, None, None, None]
        x = self.scale * jnp.tanh(x + seen)
        return jnp.pad(x, ((0, 0),) * 4 + ((self.config.guesses, 0),))  # gates shut


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_forwards_a_step(home, batch, solver):
    """One with guidance off, two otherwise, in one loop over the steps."""

    def forwards(guidance):
        settings = {"solver": solver, "steps": 3, "guidance": guidance}
        task = method(home, sampler=settings)
        net = Counted(task.net)
        _, frozen = drawn(task)
        task = dataclasses.replace(task, net=net)
        video = jax.eval_shape(task.sample, {}, frozen, batch, jax.random.key(0))
        assert video.pointmap.shape == (2, 5, 16, 16, 3)
        return net.calls

    once = forwards("off")
    assert forwards("cfg") == forwards("reference") == 2 * once


def test_guidance_at_scale_one_is_none(home, batch):
    def made(guidance, scale):
        task = method(home, sampler={"steps": 3, "guidance": guidance, "scale": scale})
        _, frozen = drawn(task)
        task = dataclasses.replace(task, net=Counted(task.net))
        return jax.jit(task.sample)({}, frozen, batch, jax.random.key(0))

    off, one, three = made("off", 5.0), made("cfg", 1.0), made("cfg", 3.0)
    np.testing.assert_allclose(one.rgb, off.rgb, rtol=0, atol=1e-4)
    np.testing.assert_allclose(one.pointmap, off.pointmap, rtol=0, atol=1e-4)
    assert np.abs(three.rgb - off.rgb).max() > 1e-3
