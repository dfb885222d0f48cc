"""Kinema4D as a task: how a batch becomes the network's inputs, its loss and its samples.

The joint latent holds RGB on the left, the pointmap on the right (nets/kinema4d.py). What
is known before anything happens conditions it: the first image, held still over the clip or
followed by grey, and the robot's pointmap and mask in every frame, from kinematics.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from w4d_jax.kin.camera import ground_depth
from w4d_jax.kin.control import Normaliser, control_signal, scene_pointmap
from w4d_jax.nets import condition as given
from w4d_jax.nets.clip import ImageEncoder
from w4d_jax.nets.codec import Codec, CosineCodec
from w4d_jax.nets.condition import unit
from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.grid import latent_shape
from w4d_jax.nets.kinema4d import ADDED, LORA_TARGETS, Kinema4D, Kinema4DConfig
from w4d_jax.train import flow
from w4d_jax.train.codec import build_codec, load_codec
from w4d_jax.train.config import filled
from w4d_jax.train.denoise import FlowConfig, Net, SamplerConfig, draw, field, losses
from w4d_jax.train.image_encoder import build_image_encoder, load_image_encoder
from w4d_jax.train.lora import LoraConfig
from w4d_jax.train.outcome import Drawing, hand_tokens, hand_width, minus, outcomes
from w4d_jax.train.start import StartConfig
from w4d_jax.types import InputError


class Video(NamedTuple):
    """RGB and geometry of B clips."""

    rgb: Any  # f32[B,T,H,W,3] in [-1, 1]
    pointmap: Any  # f32[B,T,H,W,3] normalised (kin/control.py)
    latent: Any  # f32[B,t,h,2w,C] what both were decoded from, in the codec's own scale


class Known(NamedTuple):
    """What the network is told; channels last, modalities joined along the width."""

    condition: Any  # f32[B,t,h,2w,M+C+GC] mask, latent of the first frame, guesses
    robot: Any  # f32[B,t,h,w,M+C] mask, then the latent of the robot alone; 2w for "act"
    blind: Any  # the condition of one who does not know the robot's motion
    image: Any = None  # f32[B,I,image_dim] tokens of the first image, if the network looks
    blind_image: Any = None  # the tokens of one who does not know the robot's motion

    def withheld(self, kept) -> "Known":
        """Without the robot where kept f[B] is 0: the other half of guidance."""

        def known(x, blind):
            return jnp.where(flow.over(kept, x) > 0, x, blind)

        image = self.image
        return self._replace(
            condition=known(self.condition, self.blind),
            robot=self.robot * flow.over(kept, self.robot),
            image=None if image is None else known(image, self.blind_image),
        )


@dataclasses.dataclass(frozen=True)
class RobotFlowConfig(FlowConfig):
    """A robot that is given must not outweigh what it does."""

    robot_weight: float = 1.0  # of the error where the robot is


@dataclasses.dataclass(frozen=True)
class ConditionConfig:
    """How the known enters. The defaults are the reference's.

    fill: what follows the first image in the condition's video: "grey"; "held", the image
    itself; "drawn", the image with the robot taken away and drawn where it will be.
    geometry: what stands in for the unknown first pointmap: "ramp", one for all cameras, or
    "ground", the plane that the robot stands on, as this camera sees it.
    outcomes: the guess is drawn as if the hand took along what it met; the network is shown
    what changes if it does not, and looks at what the hand sees (train/outcome.py). Takes
    fill "drawn" and a codec in which changes add up.
    """

    fill: Literal["grey", "held", "drawn"] = "grey"
    geometry: Literal["ramp", "ground"] = "ramp"
    outcomes: bool = False
    drop: float = 0.0  # share of samples that train without the robot, for real guidance
    soft: float = 0.1  # share of the robot mask's ones that train as 0.5
    # What is learned is (latent - mean) / std, one pair for all channels of a kind. With
    # prediction "residual" std is the size of what remains to be learned beside the guess.
    rgb_std: float = 1.0
    pointmap_mean: float = given.POINTMAP_MEAN
    pointmap_std: float = given.POINTMAP_STD
    robot_mean: float = given.POINTMAP_MEAN  # of the robot's pointmap, as it is shown
    robot_std: float = given.POINTMAP_STD


@dataclasses.dataclass(frozen=True)
class Kinema4DTask:
    """The method at one size: configs, codec and network in; pure functions out.

    frozen is {"codec": the codec with its weights, "image": the image encoder with its, or
    None, "model": the leaves of the network that do not train}: an argument of jitted
    functions, so that no program holds weights.

    A batch is of clips (data/pipeline.py) or of encoded ones (data/encoded.py), which the
    loss takes without running codec or image encoder.
    """

    net: Kinema4D
    codec: Codec
    codec_file: str  # its weights; "" leaves those that `init` draws
    image: ImageEncoder | None  # for a network that looks at image tokens
    image_file: str
    start: StartConfig  # which weights of the network lie in files
    lora: LoraConfig
    flow: RobotFlowConfig
    condition: ConditionConfig
    sampler: SamplerConfig
    frames: int
    height: int
    width: int

    def init(self, key):
        """Random parameters -> (params, frozen): what trains and what does not."""
        dit = self.net.config.dit
        t, h, w = self.grid
        C, M = self.codec.channels, self.codec.stride[0]
        n = self.net.config.robot_modalities
        told = M + C + self.net.config.guesses * C
        sizes = [(t, h, 2 * w, C), (t, h, 2 * w, told), (t, h, n * w, M + C)]
        noisy, condition, robot = (jnp.zeros((1, *size)) for size in sizes)
        image = jnp.zeros((1, 1, dit.image_dim)) if dit.image_dim else None
        variables = self.net.init(key, noisy, condition, robot, jnp.zeros(1), image)
        adapted = variables["params"], LORA_TARGETS, ADDED
        params, rest = self.lora.divide(key, *adapted)
        return params, self.draw_coders(key) | {"model": rest}

    def draw_coders(self, key):
        """What stands before the denoiser, its weights drawn: a part of `frozen`."""
        image = None if self.image is None else self.image.init(key)
        return {"codec": self.codec.init(key), "image": image}

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

    def bound(self, frozen) -> "Kinema4DTask":
        """The task with the weights of codec and image encoder in place."""
        return dataclasses.replace(self, codec=frozen["codec"], image=frozen["image"])

    @property
    def grid(self) -> tuple[int, int, int]:
        return latent_shape(self.frames, self.height, self.width, self.codec.stride)

    def loss(self, params, frozen, batch, key):
        """Flow matching on the joint latent -> (f32[], squared errors of the clean one)."""
        task = self.bound(frozen)
        noise, mask, drop = jax.random.split(key, 3)
        x0, known = task.encode(batch), task.known(batch)
        robot = soften_robot(mask, known.robot, self.codec.stride[0], self.condition.soft)
        kept = jax.random.bernoulli(drop, 1 - self.condition.drop, (x0.shape[0],))
        known = known._replace(robot=robot).withheld(kept)
        net = self.network(self.lora.variables(params, frozen["model"]), known)
        told = task.robot_cells(batch) * flow.over(kept, x0)
        weight = jnp.where(told > 0, self.flow.robot_weight, 1.0)
        each, clean = losses(self.flow, net, x0, noise, self.anchor(known), weight)
        rgb, points = jnp.split(jnp.square(clean - x0), 2, axis=3)
        return each.mean(), {"rgb_error": rgb.mean(), "pointmap_error": points.mean()}

    def guess(self, frozen, batch) -> Video:
        """What is known, drawn as a video: the bar that a network has to clear."""
        task = self.bound(frozen)
        return task.decode(task.anchor(task.known(batch)))

    def left(self, frozen, batch) -> Video:
        """The same where the hand takes nothing along. For tasks with `condition.outcomes`
        alone, whose guess is that it takes along what it met."""
        task = self.bound(frozen)
        known = task.known(batch).condition[..., self.codec.stride[0] :]
        taken, change = jnp.split(known, 2, axis=-1)
        return task.decode(task.scaled(taken + change))

    def anchor(self, known: Known):
        """The condition's latent on the scale of what is learned, f32[B,t,h,2w,C]."""
        M, C = self.codec.stride[0], self.codec.channels
        return self.scaled(known.condition[..., M : M + C])

    def network(self, variables, known: Known, gain=1.0, gate=lambda g: g) -> Net:
        """The network of `variables`, told what is known."""

        def net(x, time):
            told = known.condition, known.robot, time, known.image
            output = self.net.apply(variables, x, *told, gain=gain)
            return self.chosen(output, known, gate)

        return net

    def chosen(self, output, known: Known, gate):
        """The network puts out f[B,t,h,2w,G+C] -> f[B,t,h,2w,C]: each guess that it was
        told of, as far as its gate says, and the rest."""
        M, C = self.codec.stride[0], self.codec.channels
        starts = range(M + C, known.condition.shape[-1], C)
        gates, chosen = jnp.split(output, [len(starts)], axis=-1)
        gates = gate(gates)
        for g, i in enumerate(starts):
            guess = self.scaled_change(known.condition[..., i : i + C])
            chosen = chosen + gates[..., g : g + 1] * guess
        return chosen

    def sample(self, params, frozen, batch, key) -> Video:
        """Draws a future for each first frame and robot motion of the batch."""
        task = self.bound(frozen)
        known = task.known(batch)
        variables = self.lora.variables(params, frozen["model"])
        x = jax.random.normal(key, (*known.condition.shape[:-1], self.codec.channels))

        def velocity(known, gain=1.0):
            net = self.network(variables, known, gain, likelier)
            return field(self.flow, net, self.anchor(known))

        other = None
        if self.sampler.guidance == "cfg":
            other = velocity(known.withheld(jnp.zeros(x.shape[0])))
        elif self.sampler.guidance == "reference":
            other = velocity(known, gain=2.0)
        return task.decode(draw(self.sampler, velocity(known), other, x))

    # ------ between arrays and latents

    def encodings(self, batch):
        """What codec and image encoder make of a clip, by the names of data/encoded.py."""
        image = self.image_tokens(batch)
        return {
            **self.future(batch),
            **self.told(batch),
            "robot_cells": self.cells(batch) > 0,
            **({} if image is None else {"image": image}),
        }

    def encode(self, batch):
        """The clip itself, as it is learned: f32[B,t,h,2w,C]."""
        made = self.future(batch)
        pair = [made["rgb_latent"], made["pointmap_latent"]]
        return self.scaled(jnp.concatenate(pair, axis=3))

    def future(self, batch):
        """The clip's own latents, f32[B,t,h,w,C] each."""
        if "rgb_latent" in batch:
            return latents_of(batch)
        points = jax.vmap(scene_pointmap)(batch["depth"], batch["K"], normalisers(batch))
        return {
            "rgb_latent": self.codec.encode(unit(batch["rgb"])),
            "pointmap_latent": self.codec.encode(points),
        }

    def scaled(self, latent):
        rgb, points = jnp.split(latent, 2, axis=3)
        points = points - self.condition.pointmap_mean
        return self.scaled_change(jnp.concatenate([rgb, points], axis=3))

    def scaled_change(self, latent):
        """Of a difference of latents, in which the mean is out."""
        rgb, points = jnp.split(latent, 2, axis=3)
        c = self.condition
        return jnp.concatenate([rgb / c.rgb_std, points / c.pointmap_std], axis=3)

    def decode(self, latent) -> Video:
        """The inverse of `encode`."""
        c = self.condition
        rgb, points = jnp.split(latent, 2, axis=3)
        pair = rgb * c.rgb_std, points * c.pointmap_std + c.pointmap_mean
        colours, geometry = self.codec.decode_pair(*pair)
        videos = jnp.clip(colours, -1, 1), jnp.clip(geometry, -1, 1)
        return Video(*videos, jnp.concatenate(pair, axis=3))

    def known(self, batch) -> Known:
        """From the first image (batch["rgb"][:, 0]), the camera and the robot alone."""
        told, M = self.told(batch), self.codec.stride[0]
        cells = given.mask_channels(self.cells(batch), M)
        robot = told["robot_pointmap_latent"] - self.condition.robot_mean
        robot = jnp.concatenate([cells, robot / self.condition.robot_std], -1)
        if "robot_rgb_latent" in told:
            left = jnp.concatenate([cells, told["robot_rgb_latent"]], -1)
            robot = jnp.concatenate([left, robot], axis=3)
        mask = jnp.asarray(given.first_frame_mask(self.grid, M))
        mask = jnp.broadcast_to(mask, (len(cells), *mask.shape))
        blind = told.get("blind_latent", told["condition_latent"])
        guesses = [told["outcome_latent"]] if self.condition.outcomes else []
        condition = jnp.concatenate([mask, told["condition_latent"], *guesses], -1)
        blind = jnp.concatenate([mask, blind, *map(jnp.zeros_like, guesses)], -1)
        image = self.image_tokens(batch)
        return Known(condition, robot, blind, image, self.blind_tokens(image))

    def told(self, batch):
        """The latents of what is known, f32[B,t,h,w or 2w,C] each."""
        if "condition_latent" in batch:
            return latents_of(batch)
        norms, act = normalisers(batch), self.net.config.variant == "act"
        points, seen = jax.vmap(control_signal)(batch["robot_depth"], batch["K"], norms)
        rgb = unit(batch["robot_rgb"])
        latents = {"robot_pointmap_latent": self.codec.encode(points)}
        if act:
            latents["robot_rgb_latent"] = self.codec.encode(rgb)
        fill = given.then_grey if self.condition.fill == "grey" else given.held
        first = unit(batch["rgb"][:, 0]), self.geometry(batch, norms)
        colours, ground = (fill(x, self.frames) for x in first)
        latents["condition_latent"] = self.codec.encode_pair(colours, ground)
        if self.condition.fill == "drawn":
            latents["blind_latent"] = latents["condition_latent"]
            robot = Drawing(rgb, points)
            bare = uncovered(colours[:, 0], seen[:, 0])
            scene = Drawing(colours.at[:, 1:].set(bare[:, None]), ground)
            if self.condition.outcomes:
                scene, left = outcomes(*scene, batch, norms)
                nothing = jax.tree.map(jnp.zeros_like, robot)
                change = self.drawn(minus(left, scene), nothing, seen)
                latents["outcome_latent"] = change
            latents["condition_latent"] = self.drawn(scene, robot, seen)
        return latents

    def drawn(self, scene: Drawing, robot: Drawing, seen):
        """The latent of a scene with the robot before it, where seen f[B,T,H,W] is 1. Frame
        0 shows the robot already, and variant "pm" never draws its colours."""
        colours = scene.rgb
        if self.net.config.variant == "act":
            colours = colours.at[:, 1:].set(over(seen, robot.rgb, colours)[:, 1:])
        return self.codec.encode_pair(colours, over(seen, robot.pointmap, scene.pointmap))

    def image_tokens(self, batch):
        """Of the first image, f32[B,I,image_dim], for a network that looks at them."""
        width = self.net.config.dit.image_dim
        if not width:
            return None
        if "image" in batch:
            image = batch["image"].astype(jnp.float32)
        elif self.condition.outcomes:
            seen = (batch["robot_depth"][:, 0] > 0).astype(jnp.float32)
            image = hand_tokens(uncovered(unit(batch["rgb"][:, 0]), seen), batch)
        elif self.image is None:
            raise InputError(
                f"batch: no image tokens, model.dit.image_dim={width} looks at them; name "
                "an image encoder in config.image, or give the batch an 'image'"
            )
        else:
            image = self.image(batch["rgb"][:, 0])
        if image.shape[-1] != width:
            raise InputError(
                f"image tokens {image.shape}: need model.dit.image_dim={width} channels"
            )
        return image

    def blind_tokens(self, image):
        """The same for one who does not know the motion: what the hand sees is part of it,
        what an image encoder makes of the image is not."""
        return jnp.zeros_like(image) if self.condition.outcomes else image

    def cells(self, batch):
        """Which latent cells show the robot, f32[B,t,h,w]."""
        if "robot_cells" in batch:
            return batch["robot_cells"].astype(jnp.float32)
        return given.latent_mask(batch["robot_depth"] > 0, self.codec.stride)

    def robot_cells(self, batch):
        """The same in both halves of the joint latent, f32[B,t,h,2w,1]."""
        cells = self.cells(batch)
        return jnp.concatenate([cells, cells], axis=3)[..., None]

    def geometry(self, batch, norms: Normaliser):
        """A stand-in for the first frame's pointmap, f32[B,H,W,3] normalised."""
        size = self.height, self.width
        if self.condition.geometry == "ramp":
            ramp = jnp.asarray(2 * given.uniform_pointmap(*size) - 1)
            return jnp.broadcast_to(ramp, (len(batch["K"]), *ramp.shape))
        depth = jax.vmap(lambda K, pose, far: ground_depth(K, pose, far, *size))(
            batch["K"], batch["cam_from_world"][:, 0], norms.center[:, 2] + norms.scale
        )
        return jax.vmap(scene_pointmap)(depth, batch["K"], norms)


def likelier(gates):
    """1 where a guess comes true rather than not, else 0. What minimises a squared error is
    the mean of what may happen, a thing half here and half there; a sample is one of it."""
    return (gates > 0.5).astype(gates.dtype)


def latents_of(batch):
    """The latents of encoded clips, in float32 whatever they are stored in."""
    latents = {name: x for name, x in batch.items() if name.endswith("_latent")}
    return jax.tree.map(lambda x: x.astype(jnp.float32), latents)


def over(seen, x, behind):
    """x f[B,T,H,W,3] where seen f[B,T,H,W] is 1, elsewhere what is behind."""
    return jnp.where(seen[..., None] > 0, x, behind)


def uncovered(image, seen):
    """An image f32[B,H,W,3] without the robot, which stands where seen f[B,H,W] is 1. What
    it hid is unknown and is filled in from around it."""
    return given.inpaint(image, 1 - seen[..., None])


def soften_robot(key, robot, channels: int, share: float):
    """The soft mask on robot f[B,t,h,w,M+C], alike in its M mask channels."""
    mask = given.soften(key, robot[..., 0], share)
    return jnp.concatenate([given.mask_channels(mask, channels), robot[..., channels:]], -1)


def normalisers(batch) -> Normaliser:
    return Normaliser(batch["center"], batch["scale"])


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
    guesses = int(known.outcomes)
    if guesses and not (known.fill == "drawn" and isinstance(codec, CosineCodec)):
        raise InputError(
            f"condition.outcomes with fill={known.fill!r}, codec {type(codec).__name__}: "
            "need fill='drawn' and codec.cosine, in which changes add up"
        )
    dit = model.pop("dit")
    if guesses and (image or dit.get("image_dim")):
        raise InputError(
            f"condition.outcomes with image={config.get('image')} and model.dit.image_dim="
            f"{dit.get('image_dim', 0)}: need neither, it looks at what the hand sees"
        )
    if guesses:
        dit = {**dit, "image_dim": hand_width(data["frames"])}
    told = (1 + guesses) * (2 if model.get("crossed") else 1)  # the other half's too
    channels = {"in_channels": (1 + told) * C + M, "out_channels": C + guesses}
    dit = filled(DiTConfig, {**dit, **channels}, "model.dit")
    start = {name: model.pop(name) for name in ("base", "adapter") if name in model}
    grid = t, h // side, w // side
    joint = {"dit": dit, "mask_channels": M, "robot_grid": grid, "guesses": guesses}
    net = Kinema4D(filled(Kinema4DConfig, {**model, **joint}, "model"))
    return Kinema4DTask(
        net,
        codec,
        codec_file,
        image,
        image_file,
        filled(StartConfig, start, "model"),
        filled(LoraConfig, config["lora"], "lora"),
        filled(RobotFlowConfig, config["flow"], "flow"),
        known,
        filled(SamplerConfig, config["sampler"], "sampler"),
        data["frames"],
        data["height"],
        data["width"],
    )
