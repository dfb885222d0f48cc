"""Kinema4D's joint latent, and what is known of it beforehand.

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
from w4d_jax.nets.codec import Codec
from w4d_jax.nets.condition import unit
from w4d_jax.nets.grid import latent_shape
from w4d_jax.train.flow import over
from w4d_jax.train.outcome import Drawing, hand_sees, outcomes
from w4d_jax.types import InputError


class Video(NamedTuple):
    """RGB and geometry of B clips."""

    rgb: Any  # f32[B,T,H,W,3] in [-1, 1]
    pointmap: Any  # f32[B,T,H,W,3] normalised (kin/control.py)
    latent: Any  # f32[B,t,h,2w,C] what both were decoded from, in the codec's own scale


class Known(NamedTuple):
    """What the network is told; channels last, modalities joined along the width."""

    condition: Any  # f32[B,t,h,2w,M+C] mask, latent of the first frame
    robot: Any  # f32[B,t,h,w,M+C] mask, then the latent of the robot alone; 2w for "act"
    blind: Any  # the condition of one who does not know the robot's motion
    image: Any = None  # f32[B,I,image_dim] tokens of the first image, if the network looks
    blind_image: Any = None  # the tokens of one who does not know the robot's motion
    # With condition.outcomes (train/outcome.py): the thing is taken, and
    change: Any = None  # f32[B,t,h,2w,C] what of the latent changes if it is left
    stood: Any = None  # bool[B,t,h,2w] where it stood

    def withheld(self, kept) -> "Known":
        """Without the robot where kept f[B] is 0: the other half of guidance."""

        def known(x, blind):
            return jnp.where(over(kept, x) > 0, x, blind)

        image, change = self.image, self.change
        return self._replace(
            condition=known(self.condition, self.blind),
            robot=self.robot * over(kept, self.robot),
            image=None if image is None else known(image, self.blind_image),
            change=None if change is None else change * over(kept, change),
        )

    def settled(self, left) -> "Known":
        """With the thing left in the condition's latent, where left f[B] is 1."""
        C = self.change.shape[-1]
        mask, latent = self.condition[..., :-C], self.condition[..., -C:]
        latent = latent + over(left, latent) * self.change
        return self._replace(condition=jnp.concatenate([mask, latent], -1))

    def told(self):
        """The condition as the network takes it, f32[B,t,h,2w,M+C or M+2C]."""
        if self.change is None:
            return self.condition
        return jnp.concatenate([self.condition, self.change], -1)


@dataclasses.dataclass(frozen=True)
class ConditionConfig:
    """How the known enters. The defaults are the reference's.

    fill: what follows the first image in the condition's video: "grey"; "held", the image
    itself; "drawn", the image with the robot taken away and drawn where it will be.
    geometry: what stands in for the unknown first pointmap: "ramp", one for all cameras, or
    "ground", a level plane, as this camera sees it.
    ground: what things stand on, metres over the robot's base.
    outcomes: two guesses are drawn, as if the hand took along what it met and as if not; a
    small network that looks at what the hand sees chooses (train/outcome.py). Takes fill
    "drawn" and a codec in which changes add up.
    """

    fill: Literal["grey", "held", "drawn"] = "grey"
    geometry: Literal["ramp", "ground"] = "ramp"
    ground: float = 0.0
    outcomes: bool = False
    # Share of samples that train without the robot, for real guidance; with 1 it is never
    # shown, in sampling neither.
    drop: float = 0.0
    soft: float = 0.1  # share of the robot mask's ones that train as 0.5
    # Train with red, green and blue in any order: few recordings show few colours.
    recolour: bool = False
    # What is learned is (latent - mean) / std, one pair for all channels of a kind. With
    # prediction "residual" std is the size of what remains to be learned beside the guess.
    rgb_std: float = 1.0
    pointmap_mean: float = given.POINTMAP_MEAN
    pointmap_std: float = given.POINTMAP_STD
    robot_mean: float = given.POINTMAP_MEAN  # of the robot's pointmap, as it is shown
    robot_std: float = given.POINTMAP_STD


@dataclasses.dataclass(frozen=True)
class Joint:
    """Between the arrays of a batch and the latents that the network sees.

    A batch is of clips (data/pipeline.py) or of encoded ones (data/encoded.py), which need
    neither codec nor image encoder.
    """

    codec: Codec
    image: ImageEncoder | None
    condition: ConditionConfig
    variant: str  # of the network, nets/kinema4d.py
    image_dim: int  # channels of the image tokens that it looks at; 0: it looks at none
    frames: int
    height: int
    width: int

    def bound(self, frozen) -> "Joint":
        """With the weights of codec and image encoder in place."""
        return dataclasses.replace(self, codec=frozen["codec"], image=frozen["image"])

    @property
    def grid(self) -> tuple[int, int, int]:
        return latent_shape(self.frames, self.height, self.width, self.codec.stride)

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
        """From the first image (batch["rgb"][:, 0]), the camera and the robot alone; where
        the network trains without the robot, without it, for it has never seen one."""
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
        condition = jnp.concatenate([mask, told["condition_latent"]], -1)
        blind = jnp.concatenate([mask, blind], -1)
        image = self.image_tokens(batch)
        known = Known(condition, robot, blind, image, self.blind_tokens(image))
        if self.condition.outcomes:
            cells = told["outcome_cells"]
            stood = jnp.concatenate([cells, cells], axis=3)
            known = known._replace(change=told["outcome_latent"], stood=stood)
        never = self.condition.drop == 1
        return known.withheld(jnp.zeros(len(cells))) if never else known

    def told(self, batch):
        """The latents of what is known, f32[B,t,h,w or 2w,C] each; where outcomes are drawn
        also the cells, bool[B,t,h,w], in which the thing stood."""
        if "condition_latent" in batch:
            cells = {k: batch[k] for k in batch.keys() & {"outcome_cells"}}
            return latents_of(batch) | cells
        norms, act = normalisers(batch), self.variant == "act"
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
                scene, left, stood = outcomes(*scene, batch, norms)
                latents["outcome_cells"] = given.cells_with(stood, self.codec.stride)
                nothing = jax.tree.map(jnp.zeros_like, robot)
                change = jax.tree.map(jnp.subtract, left, scene)
                latents["outcome_latent"] = self.drawn(change, nothing, seen)
            latents["condition_latent"] = self.drawn(scene, robot, seen)
        return latents

    def drawn(self, scene: Drawing, robot: Drawing, seen):
        """The latent of a scene with the robot before it, where seen f[B,T,H,W] is 1. Frame
        0 shows the robot already, and variant "pm" never draws its colours."""
        colours = scene.rgb
        if self.variant == "act":
            colours = colours.at[:, 1:].set(before(seen, robot.rgb, colours)[:, 1:])
        return self.codec.encode_pair(colours, before(seen, robot.pointmap, scene.pointmap))

    def image_tokens(self, batch):
        """Of the first image, f32[B,I,image_dim], for a network that looks at them."""
        width = self.image_dim
        if not width:
            return None
        if "image" in batch:
            image = batch["image"].astype(jnp.float32)
        elif self.condition.outcomes:
            seen = (batch["robot_depth"][:, 0] > 0).astype(jnp.float32)
            bare = uncovered(unit(batch["rgb"][:, 0]), seen)
            image = hand_sees(bare, batch, self.condition.ground)[:, None]
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
        far, altitude = norms.center[:, 2] + norms.scale, self.condition.ground
        depth = jax.vmap(lambda K, pose, far: ground_depth(K, pose, far, size, altitude))(
            batch["K"], batch["cam_from_world"][:, 0], far
        )
        return jax.vmap(scene_pointmap)(depth, batch["K"], norms)

    def anchor(self, known: Known):
        """The first guess, on the scale of what is learned, f32[B,t,h,2w,C]."""
        return self.scaled(known.condition[..., self.codec.stride[0] :])

    def change(self, known: Known):
        """What of it changes if the thing is left, f32[B,t,h,2w,C]."""
        return self.scaled_change(known.change)


def recoloured(key, batch):
    """A batch of clips, in each of which red, green and blue change places; the robot's
    change with them."""
    if "rgb" not in batch:
        raise InputError(
            "condition.recolour with encoded clips: colours lie in latents; need clips"
        )
    order = jax.vmap(lambda key: jax.random.permutation(key, 3))
    order = order(jax.random.split(key, len(batch["rgb"])))[:, None, None, None]
    return batch | {
        name: jnp.take_along_axis(batch[name], order, -1) for name in ("rgb", "robot_rgb")
    }


def latents_of(batch):
    """The latents of encoded clips, in float32 whatever they are stored in."""
    latents = {name: x for name, x in batch.items() if name.endswith("_latent")}
    return jax.tree.map(lambda x: x.astype(jnp.float32), latents)


def before(seen, x, behind):
    """x f[B,T,H,W,3] where seen f[B,T,H,W] is 1, elsewhere what is behind."""
    return jnp.where(seen[..., None] > 0, x, behind)


def uncovered(image, seen):
    """An image f32[B,H,W,3] without the robot, which stands where seen f[B,H,W] is 1. What
    it hid is unknown and is filled in from around it."""
    return given.inpaint(image, 1 - seen[..., None])


def normalisers(batch) -> Normaliser:
    return Normaliser(batch["center"], batch["scale"])
