"""WristWorld's video model as a task: anchor views and a condition map in, wrist video out.

A batch holds

    map       u8[B,T,H,W,3] the condition map: the anchors' pixels seen from the wrist
    valid     bool[B,T,H,W] where the map has a pixel
    anchors   u8[B,V,T,H',W',3] the anchor videos
    rgb       u8[B,T,H,W,3] the wrist video, for training alone

The network learns the latent of the wrist video beside that of the map. No frame of the
wrist camera is ever an input.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from w4d_jax.nets.clip import ImageEncoder
from w4d_jax.nets.clip_image import squeezed
from w4d_jax.nets.codec import Codec
from w4d_jax.nets.condition import inpaint, unit
from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.grid import latent_shape
from w4d_jax.nets.wristworld import (
    ADDED,
    LORA_TARGETS,
    Thumbnail,
    WristWorld,
    WristWorldConfig,
    coverage,
    widened,
)
from w4d_jax.npz import read_npz
from w4d_jax.train.codec import build_codec, load_codec
from w4d_jax.train.config import filled
from w4d_jax.train.denoise import FlowConfig, Net, SamplerConfig, draw, field, losses
from w4d_jax.train.flow import over
from w4d_jax.train.image_encoder import build_image_encoder, load_image_encoder
from w4d_jax.train.lora import LoraConfig
from w4d_jax.train.start import base_leaves, replaced
from w4d_jax.types import InputError


class Video(NamedTuple):
    rgb: Any  # f32[B,T,H,W,3] in [-1, 1]


class Known(NamedTuple):
    """What the network is told; channels last."""

    condition: Any  # f32[B,t,h,w,C+M] the map's latent, then its validity
    text: Any  # f32[B,S,text_dim]
    features: Any  # f32[B,V,T,F] of the anchor frames
    seen: Any  # f32[B] 0: only the text is context


@dataclasses.dataclass(frozen=True)
class ConditionConfig:
    """How the known enters. The defaults are the reference's, but for `new_std`.

    holes: what the map shows where no anchor pixel falls: "black", or "filled" smoothly
    from around it.
    """

    holes: Literal["black", "filled"] = "black"
    validity: bool = False  # the share of each cell that the map covers, as channels
    new_std: float = 0.0  # of the patch embedding's weights for the map; the reference 0.02
    drop: float = 0.0  # share of samples that train without map and anchors
    drop_context: float = 0.1  # share that train without anchors, under the other text
    rgb_std: float = 1.0  # what is learned is latent / std


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """One prompt for all clips, as umT5 embeds it.

    file: .npz with positive and negative f32[rows,text_dim], zero after a prompt's end; ""
    is no text, zeros.
    """

    rows: int = 512
    file: str = ""


@dataclasses.dataclass(frozen=True)
class WristWorldTask:
    """The method at one size: configs, coders and network in; pure functions out.

    frozen is {"codec", "image": each with its weights, "text": {"positive", "negative"},
    "model": the leaves of the network that do not train}: an argument of jitted functions,
    so that no program holds weights.
    """

    net: WristWorld
    base: str  # folder of an imported Wan or WristWorld to start from; "": drawn
    codec: Codec
    codec_file: str  # its weights; "" leaves those that `init` draws
    image: ImageEncoder | Thumbnail  # its first token is an anchor frame's feature
    image_file: str
    text: TextConfig
    lora: LoraConfig
    flow: FlowConfig
    condition: ConditionConfig
    sampler: SamplerConfig
    frames: int
    height: int
    width: int

    def init(self, key):
        """Random parameters -> (params, frozen): what trains and what does not."""
        config, C = self.net.config, self.codec.channels
        extra = config.dit.in_channels - C
        noisy, condition = (jnp.zeros((1, *self.grid, n)) for n in (C, extra))
        features = jnp.zeros((1, config.views, self.frames, config.feature_dim))
        text = jnp.zeros((self.text.rows, config.dit.text_dim))
        variables = self.net.init(key, noisy, condition, jnp.zeros(1), text[None], features)
        weights = variables["params"]
        patch = weights["dit"]["patch"]
        patch["kernel"] = widened(
            jax.random.fold_in(key, 2),
            patch["kernel"][..., :C, :],
            extra,
            self.condition.new_std,
        )
        params, rest = self.lora.divide(key, weights, LORA_TARGETS, ADDED)
        return params, {
            "codec": self.codec.init(key),
            "image": self.image.init(key),
            "text": {"positive": text, "negative": text},
            "model": rest,
        }

    def load(self, frozen):
        """`frozen` with what lies in files in place of what was drawn; not to be jitted."""
        return {
            "codec": load_codec(self.codec_file, frozen["codec"]),
            "image": load_image_encoder(self.image_file, frozen["image"]),
            "text": load_text(self.text.file, frozen["text"]),
            "model": self.from_base(frozen["model"]),
        }

    def begin(self, params):
        """The same for `params`, where a run begins."""
        if not self.lora.rank:
            return self.from_base(params)
        return params | {"added": self.from_base(params["added"])}

    def from_base(self, drawn):
        """A tree of drawn leaves -> those of the base; a Wan has no view tokens."""
        if not self.base or not drawn:
            return drawn
        leaves = base_leaves(self.base, self.net.config.dit, widen=True)
        return replaced(drawn, leaves, f"model.base {self.base}", ("views",))

    @property
    def grid(self) -> tuple[int, int, int]:
        return latent_shape(self.frames, self.height, self.width, self.codec.stride)

    def loss(self, params, frozen, batch, key):
        """Flow matching on the wrist video's latent -> (f32[], squared error of the clean
        one)."""
        noise, drop, rest = jax.random.split(key, 3)
        x0 = frozen["codec"].encode(unit(batch["rgb"])) / self.condition.rgb_std
        known = self.known(frozen, batch)
        u = jax.random.uniform(drop, (x0.shape[0],))
        without, c = self.condition.drop, self.condition
        known = self.withheld(frozen, known, u >= without, u >= without + c.drop_context)
        variables = self.lora.variables(params, frozen["model"])
        net = self.network(variables, known, {"dropout": rest})
        each, clean = losses(self.flow, net, x0, noise, self.anchor(known))
        return each.mean(), {"rgb_error": jnp.square(clean - x0).mean()}

    def network(self, variables, known: Known, rngs=None) -> Net:
        """The network of `variables`, told what is known; rngs in training alone."""

        def net(x, time):
            told = known.condition, time, known.text, known.features, known.seen
            return self.net.apply(variables, x, *told, rngs=rngs)

        return net

    def anchor(self, known: Known):
        """The map's latent on the scale of what is learned, f32[B,t,h,w,C]."""
        return known.condition[..., : self.codec.channels] / self.condition.rgb_std

    def velocity(self, params, frozen, known: Known):
        """(the field that sampling follows, the one it is guided away from or None).

        Guidance "reference" takes the anchors and the text away, "cfg" the map as well.
        """
        variables = self.lora.variables(params, frozen["model"])

        def told(known):
            return field(self.flow, self.network(variables, known), self.anchor(known))

        if self.sampler.guidance == "off":
            return told(known), None
        none = jnp.zeros(len(known.seen))
        kept = none if self.sampler.guidance == "cfg" else none + 1
        return told(known), told(self.withheld(frozen, known, kept, none))

    def sample(self, params, frozen, batch, key) -> Video:
        """Draws a wrist video for each condition map of the batch."""
        known = self.known(frozen, batch)
        shape = (*known.condition.shape[:-1], self.codec.channels)
        x = jax.random.normal(key, shape)
        x = draw(self.sampler, *self.velocity(params, frozen, known), x)
        return self.decode(frozen, x)

    def guess(self, frozen, batch) -> Video:
        """The map with its holes filled: the bar that a network has to clear."""
        return Video(filled_map(batch))

    def decode(self, frozen, x) -> Video:
        """What is learned f32[B,t,h,w,C], as a video."""
        video = frozen["codec"].decode(x * self.condition.rgb_std)
        return Video(jnp.clip(video, -1, 1))

    def known(self, frozen, batch) -> Known:
        """From the condition map and the anchor videos alone."""
        if self.condition.holes == "filled":
            shown = filled_map(batch)
        else:
            shown = jnp.where(batch["valid"][..., None], unit(batch["map"]), -1.0)
        condition = frozen["codec"].encode(shown)
        if self.condition.validity:
            cells = coverage(batch["valid"], self.codec.stride)
            condition = jnp.concatenate([condition, cells], -1)
        B, text = len(condition), frozen["text"]["positive"]
        text = jnp.broadcast_to(text, (B, *text.shape))
        return Known(condition, text, self.features(frozen, batch), jnp.ones(B))

    def features(self, frozen, batch):
        """One vector for each anchor frame, f32[B,V,T,F]."""

        def look(frames):  # of one time
            tokens = frozen["image"](frames.reshape(-1, *frames.shape[2:]))
            return tokens[:, 0].reshape(*frames.shape[:2], -1)

        # One time after the other: the encoder may be large, and B is spread over devices.
        features = jax.lax.map(look, jnp.moveaxis(batch["anchors"], 2, 0))
        return jnp.moveaxis(features, 0, 2)

    def withheld(self, frozen, known: Known, map_kept, context_kept) -> Known:
        """Without the map, without the anchors and under the negative text where kept f[B]
        is 0."""
        text = jnp.where(
            over(context_kept, known.text) > 0, known.text, frozen["text"]["negative"]
        )
        condition = known.condition * over(map_kept, known.condition)
        seen = known.seen * context_kept
        return known._replace(condition=condition, text=text, seen=seen)


def filled_map(batch):
    """The condition map without holes, f32[B,T,H,W,3] in [-1, 1]."""
    return inpaint(unit(batch["map"]), batch["valid"][..., None].astype(jnp.float32))


def load_text(path: str, drawn):
    """The embeddings in the file at `path`; `drawn` where path is ""."""
    if not path:
        return drawn
    found = read_npz(path, {"positive": "f S D", "negative": "f S D"})
    shape = drawn["positive"].shape
    if found["positive"].shape != shape:
        raise InputError(
            f"text.file {path}: {found['positive'].shape}, need {shape} (rows, text_dim)"
        )
    return {
        name: jax.device_put(found[name].astype(jnp.float32), x.sharding)
        for name, x in drawn.items()
    }


def build_image(config) -> tuple[ImageEncoder | Thumbnail, str, int]:
    """What looks at anchor frames, the file of its weights, the width of what it sees.

    {"thumbnail": {"side": 8}}, or as train/image_encoder.py says. Whole frames are squeezed
    into a square, as the reference does it.
    """
    if set(config) == {"thumbnail"}:
        side = config["thumbnail"]["side"]
        return Thumbnail(side), "", 3 * side**2
    encoder, file = build_image_encoder(config)
    if encoder is None:
        raise InputError("image: names nothing, need one of thumbnail, clip")
    return dataclasses.replace(encoder, pixels=squeezed), file, encoder.config.width


def build(config) -> WristWorldTask:
    """The task of a config."""
    data, model = config["data"], dict(config["model"])
    codec, codec_file = build_codec(config["codec"])
    image, image_file, feature_dim = build_image(config["image"])
    condition = filled(ConditionConfig, config["condition"], "condition")
    text = filled(TextConfig, config["text"], "text")
    C = codec.channels
    told = C + (codec.stride[0] if condition.validity else 0)
    channels = {"in_channels": C + told, "out_channels": C}
    dit = filled(DiTConfig, {**model.pop("dit"), **channels}, "model.dit")
    base = model.pop("base", "")
    joint = {"dit": dit, "feature_dim": feature_dim, "views": len(data["anchors"])}
    net = WristWorld(filled(WristWorldConfig, {**model, **joint}, "model"))
    return WristWorldTask(
        net,
        base,
        codec,
        codec_file,
        image,
        image_file,
        text,
        filled(LoraConfig, config["lora"], "lora"),
        filled(FlowConfig, config["flow"], "flow"),
        condition,
        filled(SamplerConfig, config["sampler"], "sampler"),
        data["frames"],
        data["height"],
        data["width"],
    )
