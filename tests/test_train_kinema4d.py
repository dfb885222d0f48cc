"""Kinema4D as a task: what it learns from, what it is told, and what it must not see."""

import dataclasses
from functools import partial
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import batch_of, write_config, write_noise

from w4d_jax.train.config import load_config
from w4d_jax.train.joint import recoloured
from w4d_jax.train.kinema4d import build
from w4d_jax.train.optim import OptimizerConfig, optimizer
from w4d_jax.train.state import init_state, make_update
from w4d_jax.types import InputError


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


COLOURS = {"rgb", "robot_rgb"}
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


class Chooser:
    """A network of no weights that adds nothing to what it chooses: left f[] or f[B]."""

    def __init__(self, net, left):
        self.config, self.left = net.config, jnp.asarray(left, jnp.float32)

    def apply(self, variables, x, *told, method=None, gain=1.0):
        if method == "choose":
            return jnp.broadcast_to(self.left, len(x))
        return jnp.zeros_like(x)


def test_a_sample_is_one_outcome(home, batch):
    flow = {"prediction": "residual"}
    task = method(home, condition=DRAWN, flow=flow, sampler={"steps": 1})
    _, frozen = drawn(task)
    left, guess = task.left(frozen, batch), task.guess(frozen, batch)

    def made(choice):
        chooser = dataclasses.replace(task, net=Chooser(task.net, choice))
        return chooser.sample({}, frozen, batch, jax.random.key(0))

    for choice, want in ((1.0, left), (0.6, left), (0.4, guess), (0.0, guess)):
        np.testing.assert_allclose(made(choice).rgb, want.rgb, atol=1e-4)
        np.testing.assert_allclose(made(choice).pointmap, want.pointmap, atol=1e-4)
    assert np.abs(left.rgb - guess.rgb).max() > 0.1
    mixed = made([0.2, 0.7]).latent
    for clip, want in enumerate((guess, left)):
        np.testing.assert_allclose(mixed[clip], want.latent[clip], atol=1e-4)
    before = method(home, condition=DRAWN | {"outcomes": False}, flow=flow)
    untouched = before.guess(frozen, batch)
    np.testing.assert_allclose(left.rgb, untouched.rgb, atol=1e-4)


def test_a_choice_learns_what_came_true_where_the_thing_stood(home, batch):
    """Its loss by formula, beside that of the network, which starts from the truth."""
    flow = {"prediction": "residual", "robot_weight": 1.0}
    task = method(home, condition=DRAWN, flow=flow)
    _, frozen = drawn(task)
    joint = task.joint.bound(frozen)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def loss(left, batch):
        chooser = dataclasses.replace(task, net=Chooser(task.net, left))
        return chooser.loss({}, frozen, batch, jax.random.key(0))

    known = joint.known(batch)
    anchor, change = (np.asarray(f(known)) for f in (joint.anchor, joint.change))
    stood = np.broadcast_to(np.asarray(known.stood)[..., None], change.shape)
    assert 0 < stood.mean() < 0.5 and ((stood * change) != 0).any((1, 2, 3, 4)).all()
    elsewhere = np.random.default_rng(0).normal(size=change.shape) * ~stood
    came = np.float32([0, 1])  # the second thing is left
    for mix in (0.8, 1.0):
        part = np.abs(came - 1 + mix)[:, None, None, None, None]
        video = anchor + part * change + elsewhere
        encoded = joint.encodings(batch) | latents(joint, video)
        (total, errors), slope = loss(0.3, encoded)
        off = np.square(0.3 - came).mean()
        assert errors["outcome_error"] == pytest.approx(off, rel=1e-3)
        assert slope == pytest.approx((2 * (0.3 - came)).mean(), rel=1e-3)
        rest = np.square(video - anchor - came[:, None, None, None, None] * change).mean()
        assert total == pytest.approx(rest + off, rel=1e-3)


def latents(joint, video):
    """A video as it is learned, f[B,t,h,2w,C], as encoded clips hold it."""
    c = joint.condition
    rgb, points = np.split(np.asarray(video, np.float32), 2, axis=3)
    points = points * c.pointmap_std + c.pointmap_mean
    return {"rgb_latent": rgb * c.rgb_std, "pointmap_latent": points}


def test_only_the_height_over_the_ground_counts(home, batch):
    """Table, camera and hand a foot higher up: all that the network is told stays."""
    lifted = {name: np.array(batch[name]) for name in ("actions", "cam_from_world")}
    lifted["actions"][..., 2] += 0.3
    lifted["cam_from_world"][..., :3, 3] -= 0.3 * batch["cam_from_world"][..., :3, 2]

    def known(ground, batch):
        task = method(home, condition=DRAWN | {"ground": ground})
        return task.joint.bound(drawn(task)[1]).known(batch)

    there, here = known(0.3, batch | lifted), known(0.0, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), there, here)
    assert np.abs(known(0.0, batch | lifted).image - here.image).max() > 1


def test_colours_change_places_robot_and_all(home, batch):
    """Each clip in an order of its own, and the loss is that of the clips so coloured."""
    orders = [list(order) for order in permutations(range(3))]
    found = set()
    for seed in range(20):
        made = recoloured(jax.random.key(seed), batch)
        for i in range(len(batch["rgb"])):
            fits = [
                order
                for order in orders
                if all((made[k][i] == batch[k][i][..., order]).all() for k in COLOURS)
            ]
            found |= {tuple(order) for order in fits}
            assert fits
        assert all(made[k] is batch[k] for k in batch.keys() - COLOURS)
    assert len(found) == 6
    plain, key = method(home), jax.random.key(0)
    task = method(home, condition={"recolour": True})
    params, frozen = drawn(task)
    same = recoloured(jax.random.split(key, 4)[3], batch)
    ours = jax.jit(task.loss)(params, frozen, batch, key)[0]
    want = jax.jit(plain.loss)(params, frozen, same, key)[0]
    assert float(ours) == pytest.approx(float(want), rel=1e-5)
    with pytest.raises(InputError, match=r"recolour with encoded clips"):
        task.loss({}, frozen, task.joint.bound(frozen).encodings(batch), key)


def test_encode_decode(home, batch):
    """The codec loses nothing, so the joint latent of a clip decodes to the clip."""
    task = method(home)
    video = task.joint.decode(task.joint.encode(batch))
    np.testing.assert_allclose((video.rgb + 1) * 127.5, batch["rgb"], atol=1e-2)


class Counted:
    """A network of no weights that counts its forwards."""

    def __init__(self, net, scale=0.3):
        self.config, self.calls, self.scale = net.config, 0, scale

    def apply(self, variables, x, *told, method=None, gain=1.0):
        if method == "choose":
            return jnp.zeros(len(x))
        _, robot, time, _ = told
        self.calls += 1
        seen = gain * robot.mean() + jnp.cos(time / 1000)[:, None, None, None, None]
        return self.scale * jnp.tanh(x + seen)


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
