"""Kinema4D as a task: how a batch becomes the network's inputs, its loss and its samples.

The joint latent holds RGB on the left and the pointmap on the right (nets/kinema4d.py). What
is known before anything happens conditions it: the first image, held still over the clip or
followed by grey, and the robot's pointmap and mask in every frame, from kinematics.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from w4d_jax.kin.control import NO_ROBOT, Normaliser, control_signal, scene_pointmap
from w4d_jax.nets import condition as given
from w4d_jax.nets.codec import Codec, CosineCodec
from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.grid import latent_shape
from w4d_jax.nets.kinema4d import Kinema4D, Kinema4DConfig
from w4d_jax.sample.guidance import guided
from w4d_jax.sample.solver import euler, even_schedule, integrate, unipc, unipc_schedule
from w4d_jax.train import flow
from w4d_jax.types import InputError


class Video(NamedTuple):
    """RGB and geometry of B clips."""

    rgb: Any  # f32[B,T,H,W,3] in [-1, 1]
    pointmap: Any  # f32[B,T,H,W,3] normalised (kin/control.py)


class Known(NamedTuple):
    """What the network is told; channels last, modalities joined along the width."""

    condition: Any  # f32[B,t,h,2w,M+C] mask, then the latent of the first frame
    robot: Any  # f32[B,t,h,w,M+C] mask, then the latent of the robot alone; 2w for "act"
    anchor: Any  # f32[B,t,h,2w,C] a first guess: the robot drawn over the first frame
    still: Any  # f32[B,t,h,2w,C] the same without the robot

    def seen_by(self, kept) -> "Known":
        """The robot withheld where kept f[B] is 0: the other half of guidance."""
        anchor = jnp.where(flow.over(kept, self.anchor) > 0, self.anchor, self.still)
        return self._replace(robot=self.robot * flow.over(kept, self.robot), anchor=anchor)


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """What the network predicts and at which noise levels it learns (train/flow.py)."""

    prediction: flow.Prediction = "velocity"
    shift: float = 1.0  # of the uniform noise levels in training
    floor: float = 1.0  # of sigma in the clean loss


@dataclasses.dataclass(frozen=True)
class ConditionConfig:
    """How the known enters. The reference: fill "grey", drop 0, soft 0.1, and its statistics."""

    fill: str = "grey"  # or "held": after the first image
    drop: float = 0.0  # share of samples that train without the robot, for real guidance
    soft: float = 0.1  # share of the robot mask's ones that train as 0.5
    pointmap_mean: float = given.POINTMAP_MEAN  # of pointmap latents, all channels
    pointmap_std: float = given.POINTMAP_STD


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """The reference: unipc, 50 steps, shift 3, guidance "reference" at 5."""

    solver: str = "euler"  # or "unipc"
    steps: int = 50
    shift: float = 3.0
    guidance: str = "off"  # "cfg" or "reference" (sample/guidance.py): two forwards a step
    scale: float = 5.0


@dataclasses.dataclass(frozen=True)
class Kinema4DTask:
    """The method at one size: configs, codec and network in; pure functions out."""

    net: Kinema4D
    codec: Codec
    flow: FlowConfig
    condition: ConditionConfig
    sampler: SamplerConfig
    frames: int
    height: int
    width: int

    def init(self, key):
        """Random parameters -> (params, frozen); nothing is frozen in full training."""
        t, h, w = self.grid
        C, M = self.codec.channels, self.codec.stride[0]
        n = self.net.config.robot_modalities
        sizes = [(t, h, 2 * w, C), (t, h, 2 * w, M + C), (t, h, n * w, M + C)]
        noisy, condition, robot = (jnp.zeros((1, *size)) for size in sizes)
        variables = self.net.init(key, noisy, condition, robot, jnp.zeros(1))
        return variables["params"], {}

    @property
    def grid(self) -> tuple[int, int, int]:
        return latent_shape(self.frames, self.height, self.width, self.codec.stride)

    def loss(self, params, frozen, batch, key):
        """Flow matching on the joint latent -> (f32[], metrics by noise level)."""
        del frozen
        level, noise, mask, drop = jax.random.split(key, 4)
        x0, known = self.encode(batch), self.known(batch)
        sigma = flow.uniform_sigma(level, x0.shape[0], self.flow.shift)
        eps = jax.random.normal(noise, x0.shape)
        x = flow.noised(x0, eps, sigma)
        robot = soften_robot(mask, known.robot, self.codec.stride[0], self.condition.soft)
        kept = jax.random.bernoulli(drop, 1 - self.condition.drop, (x0.shape[0],))
        known = known._replace(robot=robot).seen_by(kept)
        estimate = self.estimate(params, x, sigma, known)
        if self.flow.prediction == "velocity":
            each = flow.velocity_loss(estimate.velocity, x0, eps)
        else:
            each = flow.clean_loss(estimate.clean, x0, sigma, self.flow.floor)
        return each.mean(), {}

    def estimate(self, params, x, sigma, known: Known, gain=1.0) -> flow.Estimate:
        """What the network believes at x f[B,t,h,2w,C] and sigma f[B]."""
        output = self.net.apply(
            {"params": params}, x, known.condition, known.robot, 1000 * sigma, gain=gain
        )
        return flow.estimate(self.flow.prediction, output, x, sigma, known.anchor)

    def sample(self, params, frozen, batch, key) -> Video:
        """Draws a future for each first frame and robot motion of the batch."""
        del frozen
        known, config = self.known(batch), self.sampler
        x = jax.random.normal(key, (*known.condition.shape[:-1], self.codec.channels))

        def field(known, gain=1.0):
            def velocity(x, sigma, timestep):
                levels = jnp.full(x.shape[0], sigma)
                return self.estimate(params, x, levels, known, gain).velocity

            return velocity

        other = None
        if config.guidance == "cfg":
            other = field(known.seen_by(jnp.zeros(x.shape[0])))
        elif config.guidance == "reference":
            other = field(known, gain=2.0)
        solver, schedule = {
            "euler": (euler, even_schedule),
            "unipc": (unipc, unipc_schedule),
        }[config.solver]
        velocity = guided(field(known), other, config.scale)
        return self.decode(
            integrate(velocity, x, schedule(config.steps, config.shift), solver)
        )

    # ------ between arrays and latents

    def encode(self, batch):
        """The clip itself: the joint latent f32[B,t,h,2w,C]."""
        points = jax.vmap(scene_pointmap)(batch["depth"], batch["K"], normalisers(batch))
        return self.joint(unit(batch["rgb"]), points)

    def joint(self, rgb, points):
        """Videos f32[B,T,H,W,3] in [-1, 1] -> latent f32[B,t,h,2w,C]."""
        points = self.codec.encode(points)
        points = (points - self.condition.pointmap_mean) / self.condition.pointmap_std
        return jnp.concatenate([self.codec.encode(rgb), points], axis=3)

    def decode(self, latent) -> Video:
        """The inverse of `joint`."""
        left, right = jnp.split(latent, 2, axis=3)
        right = right * self.condition.pointmap_std + self.condition.pointmap_mean
        rgb, points = self.codec.decode(left), self.codec.decode(right)
        return Video(jnp.clip(rgb, -1, 1), jnp.clip(points, -1, 1))

    def known(self, batch) -> Known:
        """From the first image (batch["rgb"][:, 0]), the camera and the robot alone."""
        M, act = self.codec.stride[0], self.net.config.variant == "act"
        image = unit(batch["rgb"][:, 0])
        ramp = 2 * given.uniform_pointmap(self.height, self.width) - 1
        still = [
            given.held(x, self.frames) for x in (image, jnp.broadcast_to(ramp, image.shape))
        ]
        latent = held = self.joint(*still)
        if self.condition.fill == "grey":
            latent = self.joint(*(given.then_grey(x[:, 0], self.frames) for x in still))
        first = jnp.broadcast_to(
            given.first_frame_mask(self.grid, M), (*latent.shape[:-1], M)
        )

        points, seen = jax.vmap(control_signal)(
            batch["robot_depth"], batch["K"], normalisers(batch)
        )
        # Without a robot image ("pm") its half of the joint latent is cut off below.
        rgb = unit(batch["robot_rgb"]) if act else jnp.full_like(points, NO_ROBOT)
        robot = self.joint(rgb, points)
        cells = given.mask_channels(given.latent_mask(seen, self.codec.stride), M)
        if act:
            cells = jnp.concatenate([cells, cells], axis=3)
        robot = robot[..., -cells.shape[3] :, :]

        # The image itself, not the drawing, is the first guess of frame 0.
        later = seen.at[:, 0].set(0)[..., None] if act else 0.0
        guess = [
            jnp.where(later > 0, rgb, still[0]),
            jnp.where(seen[..., None] > 0, points, still[1]),
        ]
        return Known(
            jnp.concatenate([first, latent], -1),
            jnp.concatenate([cells, robot], -1),
            self.joint(*guess),
            held,
        )


def unit(image):
    """u8 -> f32 in [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1


def soften_robot(key, robot, channels: int, share: float):
    """The soft mask on robot f[B,t,h,w,M+C], alike in its M mask channels."""
    mask = given.soften(key, robot[..., 0], share)
    return jnp.concatenate([given.mask_channels(mask, channels), robot[..., channels:]], -1)


def normalisers(batch) -> Normaliser:
    return Normaliser(batch["center"], batch["scale"])


def build(config) -> Kinema4DTask:
    """The task of a config."""
    data, model = config["data"], dict(config["model"])
    codec = build_codec(config["codec"])
    C, M = codec.channels, codec.stride[0]
    t, h, w = latent_shape(data["frames"], data["height"], data["width"], codec.stride)
    side = model["robot_patch"]
    if h % side or w % side:
        raise InputError(
            f"data {data['height']}x{data['width']}: latent of {h} x {w} cells, need multiples "
            f"of model.robot_patch={side}"
        )
    dit = DiTConfig(**{**model.pop("dit"), "in_channels": 2 * C + M, "out_channels": C})
    net = Kinema4D(
        Kinema4DConfig(dit, mask_channels=M, robot_grid=(t, h // side, w // side), **model)
    )
    return Kinema4DTask(
        net,
        codec,
        FlowConfig(**config["flow"]),
        ConditionConfig(**config["condition"]),
        SamplerConfig(**config["sampler"]),
        data["frames"],
        data["height"],
        data["width"],
    )


def build_codec(config) -> Codec:
    """{"cosine": {"stride": ...}}."""
    if set(config) != {"cosine"}:
        raise InputError(f"codec {sorted(config)}: need exactly one of cosine")
    return CosineCodec(tuple(config["cosine"]["stride"]))
