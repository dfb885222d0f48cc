"""Kinema4D as a task: its network's inputs from a batch, its loss, its samples."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from w4d_jax.nets import condition
from w4d_jax.nets.codec import CosineCodec
from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.grid import latent_shape
from w4d_jax.nets.kinema4d import ADDED, LORA_TARGETS, Kinema4D, Kinema4DConfig
from w4d_jax.train import flow
from w4d_jax.train.codec import build_codec, load_codec
from w4d_jax.train.config import filled
from w4d_jax.train.denoise import FlowConfig, Net, SamplerConfig, draw, field, losses
from w4d_jax.train.image_encoder import build_image_encoder, load_image_encoder
from w4d_jax.train.joint import ConditionConfig, Joint, Known, Video, recoloured
from w4d_jax.train.lora import LoraConfig
from w4d_jax.train.outcome import hand_width, truth
from w4d_jax.train.start import StartConfig
from w4d_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class RobotFlowConfig(FlowConfig):
    """A robot that is given must not outweigh what it does."""

    robot_weight: float = 1.0  # of the error where the robot is


@dataclasses.dataclass(frozen=True)
class Kinema4DTask:
    """The method at one size: configs, codec and network in; pure functions out.

    frozen is {"codec": the codec with its weights, "image": the image encoder with its, or
    None, "model": the leaves of the network that do not train}: an argument of jitted
    functions, so that no program holds weights. A batch is what train/joint.py says.
    """

    net: Kinema4D
    joint: Joint  # between arrays and latents; its codec and image encoder yet weightless
    codec_file: str  # the codec's weights; "" leaves those that `init` draws
    image_file: str  # the image encoder's
    start: StartConfig  # which weights of the network lie in files
    lora: LoraConfig
    flow: RobotFlowConfig
    sampler: SamplerConfig

    def init(self, key):
        """Random parameters -> (params, frozen): what trains and what does not."""
        t, h, w = self.joint.grid
        C, M = self.joint.codec.channels, self.joint.codec.stride[0]
        n = self.net.config.robot_modalities
        told = self.net.config.told_channels
        sizes = [(t, h, 2 * w, C), (t, h, 2 * w, told), (t, h, n * w, M + C)]
        noisy, condition, robot = (jnp.zeros((1, *size)) for size in sizes)
        width = self.joint.image_dim
        image = jnp.zeros((1, 1, width)) if width else None
        variables = self.net.init(key, noisy, condition, robot, jnp.zeros(1), image)
        adapted = variables["params"], LORA_TARGETS, ADDED
        params, rest = self.lora.divide(key, *adapted)
        return params, self.draw_coders(key) | {"model": rest}

    def draw_coders(self, key):
        """What stands before the denoiser, its weights drawn: a part of `frozen`."""
        image = self.joint.image
        drawn = None if image is None else image.init(key)
        return {"codec": self.joint.codec.init(key), "image": drawn}

    def load(self, frozen):
        """`frozen` with what lies in files in place of what was drawn; not to be jitted."""
        codec = load_codec(self.codec_file, frozen["codec"])
        image = load_image_encoder(self.image_file, frozen["image"])
        loaded = {"codec": codec, "image": image}
        if "model" in frozen:  # encoding clips does without
            loaded["model"] = self.start.rest(self.net.config, frozen["model"])
        return frozen | loaded

    def begin(self, params):
        """The same for `params`, where a run begins."""
        return self.start.params(self.net.config, self.lora, params)

    def loss(self, params, frozen, batch, key):
        """Flow matching on the joint latent, beside the outcome that came true, and the
        squared error of the choice -> (f32[], both by themselves).

        Beside a choice that may be wrong the network would learn to take some of it back.
        """
        joint = self.joint.bound(frozen)
        noise, mask, drop, order = jax.random.split(key, 4)
        if joint.condition.recolour:
            batch = recoloured(order, batch)
        x0, known = joint.encode(batch), joint.known(batch)
        channels, soft = joint.codec.stride[0], joint.condition.soft
        robot = soften_robot(mask, known.robot, channels, soft)
        kept = jax.random.bernoulli(drop, 1 - joint.condition.drop, (x0.shape[0],))
        known = known._replace(robot=robot).withheld(kept)
        variables = self.lora.variables(params, frozen["model"])
        errors, guess = {}, known
        if joint.condition.outcomes:
            true = truth(joint.change(known), x0 - joint.anchor(known), known.stood)
            off = jnp.square(self.left_in(variables, known) - true.left)
            errors["outcome_error"] = jnp.mean(true.told * off)
            guess = known.settled(true.left)
        net, anchor = self.network(variables, guess), joint.anchor(guess)
        given = joint.robot_cells(batch) * flow.over(kept, x0)
        weight: Any = jnp.where(given > 0, self.flow.robot_weight, 1.0)
        each, clean = losses(self.flow, net, x0, noise, anchor, weight)
        rgb, points = jnp.split(jnp.square(clean - x0), 2, axis=3)
        total = each.mean() + sum(errors.values())
        return total, errors | {"rgb_error": rgb.mean(), "pointmap_error": points.mean()}

    def guess(self, frozen, batch) -> Video:
        """What is known, drawn as a video: the bar that a network has to clear."""
        joint = self.joint.bound(frozen)
        return joint.decode(joint.anchor(joint.known(batch)))

    def left(self, frozen, batch) -> Video:
        """The same where the hand takes nothing along: for a guess that it takes along what
        it met (`condition.outcomes`)."""
        joint = self.joint.bound(frozen)
        known = joint.known(batch)
        return joint.decode(joint.anchor(known) + joint.change(known))

    def left_in(self, variables, known: Known):
        """How sure the network is that what the hand met is left: f32[B] in 0..1."""
        left: Any = self.net.apply(variables, known.image, method="choose")
        return left

    def network(self, variables, known: Known, gain=1.0) -> Net:
        """The network of `variables`, told what is known."""

        def net(x, time):
            told = known.told(), known.robot, time, known.image
            return self.net.apply(variables, x, *told, gain=gain)

        return net

    def sample(self, params, frozen, batch, key) -> Video:
        """Draws a future for each first frame and robot motion of the batch.

        In doubt the likelier outcome is drawn, whole. What minimises a squared error is the
        mean of what may happen, a thing half here and half there; a sample is one of it.
        """
        joint = self.joint.bound(frozen)
        known = joint.known(batch)
        variables = self.lora.variables(params, frozen["model"])
        if joint.condition.outcomes:
            known = known.settled(self.left_in(variables, known) > 0.5)
        x = jax.random.normal(key, (*known.condition.shape[:-1], joint.codec.channels))

        def velocity(known, gain=1.0):
            net = self.network(variables, known, gain)
            return field(self.flow, net, joint.anchor(known))

        other = None
        if self.sampler.guidance == "cfg":
            other = velocity(known.withheld(jnp.zeros(x.shape[0])))
        elif self.sampler.guidance == "reference":
            other = velocity(known, gain=2.0)
        return joint.decode(draw(self.sampler, velocity(known), other, x))


def soften_robot(key, robot, channels: int, share: float):
    """The soft mask on robot f[B,t,h,w,M+C], alike in its M mask channels."""
    mask = condition.soften(key, robot[..., 0], share)
    return jnp.concatenate(
        [condition.mask_channels(mask, channels), robot[..., channels:]], -1
    )


def build(config) -> Kinema4DTask:
    """The task of a config."""
    data, model = config["data"], dict(config["model"])
    codec, codec_file = build_codec(config["codec"])
    image, image_file = build_image_encoder(config.get("image", {}))
    C, M = codec.channels, codec.stride[0]
    t, h, w = latent_shape(data["frames"], data["height"], data["width"], codec.stride)
    side = model["robot_patch"]
    if h % side or w % side:
        raise InputError(
            f"data {data['height']}x{data['width']}: latent of {h} x {w} cells, need "
            f"multiples of model.robot_patch={side}"
        )
    known = filled(ConditionConfig, config["condition"], "condition")
    if known.outcomes and not (known.fill == "drawn" and isinstance(codec, CosineCodec)):
        raise InputError(
            f"condition.outcomes with fill={known.fill!r}, codec {type(codec).__name__}: "
            "need fill='drawn' and codec.cosine, in which changes add up"
        )
    learned = filled(RobotFlowConfig, config["flow"], "flow")
    if known.outcomes and learned.prediction != "residual":
        raise InputError(
            f"condition.outcomes with flow.prediction={learned.prediction!r}: need "
            "'residual', what is missing from the outcome that is chosen"
        )
    dit = model.pop("dit")
    if known.outcomes and (image or dit.get("image_dim")):
        raise InputError(
            f"condition.outcomes with image={config.get('image')} and model.dit.image_dim="
            f"{dit.get('image_dim', 0)}: need neither, it looks at what the hand sees"
        )
    if known.outcomes:
        dit = {**dit, "image_dim": hand_width(data["frames"])}
    # The other half's too, if crossed.
    told = (1 + known.outcomes) * (2 if model.get("crossed") else 1)
    channels = {"in_channels": (1 + told) * C + M, "out_channels": C}
    dit = filled(DiTConfig, {**dit, **channels}, "model.dit")
    start = {name: model.pop(name) for name in ("base", "adapter") if name in model}
    grid = t, h // side, w // side
    sizes = {"dit": dit, "mask_channels": M, "robot_grid": grid, "outcomes": known.outcomes}
    net = Kinema4D(filled(Kinema4DConfig, {**model, **sizes}, "model"))
    size = data["frames"], data["height"], data["width"]
    joint = Joint(codec, image, known, net.config.variant, dit.image_dim, *size)
    return Kinema4DTask(
        net,
        joint,
        codec_file,
        image_file,
        filled(StartConfig, start, "model"),
        filled(LoraConfig, config["lora"], "lora"),
        learned,
        filled(SamplerConfig, config["sampler"], "sampler"),
    )
