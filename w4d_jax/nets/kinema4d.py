"""Kinema4D: a video transformer that sees RGB and pointmap side by side and a known robot.

Modalities are joined along the width (RGB left, pointmap right), share rotary positions
and differ by a learned domain embedding. The robot's geometry enters in three places: its
latent, projected, is added to the condition latent; its mask overwrites the condition's
mask; its patches are the context tokens of every cross-attention (arXiv 2603.16669).
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from w4d_jax.nets.dit import DiT, DiTConfig, wan_14b_i2v
from w4d_jax.nets.ops import LayerNorm, Linear, PatchLinear, rope, zeros
from w4d_jax.types import InputError

# What the paper trains: low-rank pairs on these modules, and these subtrees in full.
LORA_TARGETS = r"dit/blocks/(self|cross)/[qkvo]"
ADDED = ("domain", "robot_tokens", "robot_latent", "choice")


@dataclasses.dataclass(frozen=True)
class Kinema4DConfig:
    """variant "pm": the robot's pointmap, in the pointmap half and all latent frames;
    "act": its RGB and pointmap, in both halves, the first latent frame left as it was.

    crossed: each half is also given the other's condition latent, channel by channel. The
    reference leaves it to attention to find the same place in the other half; learning that
    takes a small network longer than anything else.

    outcomes: with the condition comes a further latent, what changes of it if another
    outcome comes true. Which of the two it is, a small network of its own says beforehand,
    from the image tokens alone, which are then what the hand does and sees.
    """

    dit: DiTConfig
    variant: str = "pm"
    crossed: bool = False
    outcomes: bool = False
    modalities: int = 2
    mask_channels: int = 4  # video frames of one latent frame
    robot_width: int = 128
    robot_patch: int = 15
    robot_grid: tuple[int, int, int] = (13, 4, 6)  # robot patches of one modality: t, h, w

    def __post_init__(self):
        object.__setattr__(self, "robot_grid", tuple(self.robot_grid))
        if self.variant not in ("pm", "act"):
            raise InputError(f"variant={self.variant!r}: need pm or act")
        latents = 1 + self.told * (2 if self.crossed else 1)
        need = latents * self.channels + self.mask_channels
        if self.dit.in_channels != need:
            raise InputError(
                f"in_channels={self.dit.in_channels}: need {need} (mask "
                f"{self.mask_channels}, {latents} latents of {self.channels} with "
                f"crossed={self.crossed}, outcomes={self.outcomes})"
            )
        if self.outcomes and not self.dit.image_dim:
            raise InputError("outcomes with image_dim=0: need tokens of what the hand sees")

    @property
    def channels(self) -> int:
        """C of a latent."""
        return self.dit.out_channels

    @property
    def told(self) -> int:
        """Latents of a condition: of the first frame, and its change."""
        return 2 if self.outcomes else 1

    @property
    def told_channels(self) -> int:
        """Of a condition: its mask, its latents."""
        return self.mask_channels + self.told * self.channels

    @property
    def robot_modalities(self) -> int:
        return self.modalities if self.variant == "act" else 1

    @property
    def first_frame(self) -> int:
        """The first latent frame whose channels the robot changes."""
        return 1 if self.variant == "act" else 0


def kinema4d_14b() -> dict:
    """The paper's model: Wan2.1-I2V-14B, 49 frames of 480x720, robot pointmap only."""
    return {"dit": DiTConfig(**wan_14b_i2v()), "variant": "pm"}


class Kinema4D(nn.Module):
    """The velocity (or whatever it is trained for) of a joint latent, given the robot.

    noisy f[B,t,h,W,C], condition f[B,t,h,W,M+C] (mask, then latent of the first frame; with
    `outcomes` M+2C, its change last), robot f[B,t,h,w,M+C] (mask, then latent of the robot
    alone), time f[B] in 0..1000, image f[B,I,image_dim] or None -> f32[B,t,h,W,C]. W is the
    joint width: `modalities` x one width; the robot's w is `robot_modalities` x one width.
    `gain` f[] scales the robot's projection: 2 is the second forward of the authors'
    sampler (it adds it twice).
    """

    config: Kinema4DConfig

    def setup(self):
        config = self.config
        self.dit = DiT(config.dit)
        self.robot_tokens = RobotTokens(config)
        self.robot_latent = config.dit.linear(
            config.channels, "robot_latent", kernel_init=zeros
        )
        shape = (config.modalities, config.dit.width)
        self.domain = self.param("domain", zeros, shape, jnp.float32)
        if config.outcomes:
            self.choice = Choice()

    def __call__(self, noisy, condition, robot, time, image=None, gain=1.0):
        config = self.config
        _check(config, noisy, condition, robot)
        if config.outcomes and self.is_initializing():
            self.choose(image)
        known = condition[..., config.mask_channels :]
        condition, change = jnp.split(condition, [robot.shape[-1]], axis=-1)
        x = [noisy, self.inject(condition, robot, gain), change]
        if config.crossed:
            x.append(jnp.roll(known, known.shape[3] // config.modalities, axis=3))
        tokens = self.embed(jnp.concatenate(x, -1))
        phases = joint_rope(tokens.shape[1:4], config)
        return self.dit.transform(tokens, phases, time, self.robot_tokens(robot), image)

    def choose(self, image):
        """image f[B,I,image_dim] -> f32[B] in 0..1: how sure it is that the change that the
        condition brings comes true."""
        return self.choice(image)

    def inject(self, condition, robot, gain=1.0):
        """The condition f[B,t,h,W,M+C] with the robot's mask and latent written into it."""
        M, first = self.config.mask_channels, self.config.first_frame
        left = condition.shape[3] - robot.shape[3]
        mask, latent = jnp.split(condition, [M], axis=-1)
        robot_mask, robot_latent = jnp.split(robot[:, first:], [M], axis=-1)
        added = gain * self.robot_latent(robot_latent).astype(condition.dtype)
        before = ((0, 0), (first, 0), (0, 0), (left, 0), (0, 0))
        latent = latent + jnp.pad(added, before)
        mask = mask.at[:, first:, :, left:].set(robot_mask.astype(mask.dtype))
        return jnp.concatenate([mask, latent], -1)

    def embed(self, x):
        """x f[B,t,h,W,in_channels] -> tokens f[B,t,h,W,D] that know their modality."""
        tokens = self.dit.embed(x)
        domain = jnp.repeat(self.domain, tokens.shape[3] // self.config.modalities, axis=0)
        return tokens + domain.astype(tokens.dtype)


class Choice(nn.Module):
    """image f[B,I,image_dim] -> f32[B] in 0..1. It sees no colours, cameras or tables, and
    so cannot learn the few that recordings show."""

    @nn.compact
    def __call__(self, image):
        x = image.reshape(len(image), -1)
        for i in (1, 2):
            x = nn.gelu(Linear(128, name=f"in{i}")(x))
        return nn.sigmoid(Linear(1, name="out")(x)[:, 0])


class RobotTokens(nn.Module):
    """robot f[B,t,h,w,M+C] -> context f[B,S,D]; token order (frame, row, joint column)."""

    config: Kinema4DConfig

    @nn.compact
    def __call__(self, robot):
        config, dit = self.config, self.config.dit
        side, width = config.robot_patch, config.robot_width
        small = nn.initializers.truncated_normal(0.02)
        position = self.param("position", small, (*config.robot_grid, width), jnp.float32)
        position = jnp.concatenate([position] * config.robot_modalities, axis=2)
        if config.variant == "act":
            domain = self.param("domain", small, (config.modalities, width), jnp.float32)
            position = position + jnp.repeat(domain, config.robot_grid[2], axis=0)

        patch = (1, side, side)
        x = PatchLinear(width, patch, dit.dtype, dit.param_dtype, name="patch")(robot)
        x = nn.gelu(LayerNorm(1e-5, name="norm")(x), approximate=False) + position
        x = x.reshape(robot.shape[0], -1, width)
        return dit.linear(dit.width, "out", kernel_init=zeros)(x)


def joint_rope(grid: tuple[int, int, int], config: Kinema4DConfig):
    """Phases of the joint grid f32[2,t,h,W,K/2]: every modality has the same positions."""
    t, h, width = grid
    half = rope((t, h, width // config.modalities), config.dit.head_dim)
    return jnp.concatenate([half] * config.modalities, axis=3)


def _check(config: Kinema4DConfig, noisy, condition, robot) -> None:
    """Refuses sizes that do not fit each other, in one line."""
    B, *latent = noisy.shape[:-1]
    t, h, w = config.robot_grid
    h, w = h * config.robot_patch, w * config.robot_patch
    if latent != [t, h, config.modalities * w]:
        raise InputError(
            f"latent of {latent} (frames, rows, joint columns): need "
            f"{[t, h, config.modalities * w]} ({config.modalities} modalities of "
            f"robot_grid {config.robot_grid} x robot_patch {config.robot_patch})"
        )
    robot_channels = config.mask_channels + config.channels
    for name, x, modalities, channels in (
        ("condition", condition, config.modalities, config.told_channels),
        ("robot condition", robot, config.robot_modalities, robot_channels),
    ):
        need = (B, t, h, modalities * w, channels)
        if x.shape != need:
            raise InputError(f"{name} of shape {x.shape}: need {need}")
