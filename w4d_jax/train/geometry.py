"""WristWorld's first stage as a task: anchor views in, points and the wrist camera out.

A batch is one of data/scene.py: moments that V anchors and the wrist camera see. The wrist
image is no input, and not even needed to train: matched pixels come from exact geometry, or
with the batch (data/tracks.py).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.data.tracks import told
from w4d_jax.kin import se3
from w4d_jax.kin.match import Pairs, Seen, exact_pairs
from w4d_jax.kin.pose import decode_pose, encode_pose, mean_pose
from w4d_jax.kin.warp import Anchors, condition_map
from w4d_jax.nets.checkpoint import from_entry, read_checkpoint
from w4d_jax.nets.lora import join, split
from w4d_jax.nets.vggt import VGGT, Geometry, VGGTConfig
from w4d_jax.nets.weights import flat, tree
from w4d_jax.train.config import filled
from w4d_jax.train.defects import Defects
from w4d_jax.train.geometry_losses import LossConfig, objective
from w4d_jax.train.geometry_targets import Targets, targets, unit_of
from w4d_jax.train.start import replaced
from w4d_jax.types import Camera, InputError

NEW = ("wrist",)  # what WristWorld adds to VGGT


class Scene(NamedTuple):
    """What the network says of B moments, in the frame of the first anchor's camera and in
    its own unit of length."""

    points: Any  # f32[B,V,H,W,3]
    confidence: Any  # f32[B,V,H,W], above 1
    anchors: Any  # f32[B,V,4,4] cam_from_world of each
    cam_from_world: Any  # f32[B,4,4] of the wrist camera
    K: Any  # f32[B,3,3] of the wrist camera


@dataclasses.dataclass(frozen=True)
class GeometryTask:
    """The method at one size: pure functions. frozen is {"model": what does not train}.

    trains: the parts of the network that do (`VGGTConfig`'s names, or "aggregator"); none
    named is all. base: a folder of imported weights (tools/convert.py); VGGT-1B's lack the
    wrist head, which then stays as drawn. "" draws everything.
    """

    net: VGGT
    trains: tuple[str, ...]
    base: str
    losses: LossConfig
    pairs: int  # matched pixels of a moment, where they are drawn
    views: int
    height: int
    width: int

    def init(self, key):
        """Random parameters -> (params, frozen): what trains and what does not."""
        images = jnp.zeros((1, self.views, self.height, self.width, 3))
        params: Any = self.net.init(key, images)["params"]
        if not self.trains:
            return params, {"model": {}}
        params, rest = split(params, lambda path: path.split("/")[0] in self.trains)
        return params, {"model": rest}

    def load(self, frozen):
        """`frozen` with what lies in files in place of what was drawn; not to be jitted."""
        return frozen | {"model": self._from_base(frozen["model"])}

    def begin(self, params):
        """The same for `params`, where a run begins; what stays as drawn starts calm."""
        return self._from_base(calm(params, self.net.config))

    def _from_base(self, drawn):
        if not self.base or not drawn:
            return drawn
        found = read_checkpoint(self.base, {"vggt": VGGTConfig})
        return replaced(drawn, found.leaves, f"model.base {self.base}", NEW)

    def in_the_middle(self, begun, moments: list[dict]):
        """`begun`, its wrist head saying the camera in the middle of moments
        (data/scene.py); for a network in which everything trains."""
        parts = (f"{view}{name}" for view in ("", "wrist_") for name in Seen._fields)
        batch = {part: np.stack([m[part] for m in moments]) for part in parts}
        aim = targets(seen(batch, ""), seen(batch, "wrist_"))
        return at_the_mean(begun, self.net.config, aim.wrist, (self.height, self.width))

    def loss(self, params, frozen, batch, key):
        """-> (f32[], terms, counts and errors)."""
        draw, drop = jax.random.split(key)
        said = self.describe(params, frozen, batch["rgb"], {"dropout": drop})
        anchors, wrist = seen(batch, ""), seen(batch, "wrist_")
        pairs = self.matched(draw, batch, anchors, wrist)
        aim = self.targets(said, anchors, wrist)
        size = self.height, self.width
        total, terms = objective(said, aim, pairs, size, self.losses)
        return total, terms | wrist_errors(said, aim, size)

    def matched(self, key, batch, anchors: Seen, wrist: Seen) -> Pairs:
        """The pairs that came with the batch; else drawn from exact geometry."""
        pairs = told(batch)
        if pairs is not None:
            return pairs
        keys = jax.random.split(key, len(anchors.K))
        return jax.vmap(exact_pairs, (0, 0, 0, None))(keys, anchors, wrist, self.pairs)

    def targets(self, said: Geometry, anchors: Seen, wrist: Seen) -> Targets:
        """Where points train, they learn VGGT's unit; elsewhere they have one already."""
        if not self.trains or "point" in self.trains:
            return targets(anchors, wrist, None, self.losses.defects)
        metric = targets(anchors, wrist, jnp.ones(len(anchors.K)))
        unit = unit_of(said.points, metric.points, metric.valid)
        sure = jnp.isfinite(unit)
        unit = jnp.where(sure, unit, 1.0)
        return targets(anchors, wrist, unit, self.losses.defects)._replace(sure=sure)

    def describe(self, params, frozen, rgb, rngs=None) -> Geometry:
        """rgb u8[B,V,H,W,3]."""
        variables = {"params": join(frozen["model"], params)}
        said: Any = self.net.apply(variables, rgb.astype(jnp.float32) / 255, rngs=rngs)
        return said

    def sample(self, params, frozen, batch, key) -> Scene:
        """What the network says of each moment of the batch; nothing is drawn."""
        return self.scene(self.describe(params, frozen, batch["rgb"]))

    def scene(self, said: Geometry) -> Scene:
        """What is said, with its last refinements of poses decoded."""
        size = self.height, self.width
        anchors, _ = decode_pose(said.pose[-1], *size)
        wrist = decode_pose(said.wrist[-1], *size)
        return Scene(said.points, said.points_confidence, anchors, *wrist)

    def guess(self, frozen, batch) -> Scene:
        """Without a network: no points, and the first anchor's camera for the wrist's."""
        B, V, H, W, _ = batch["rgb"].shape
        still = jnp.tile(jnp.eye(4), (B, V, 1, 1))
        nothing = jnp.zeros((B, V, H, W, 3)), jnp.ones((B, V, H, W))
        return Scene(*nothing, still, still[:, 0], batch["K"][:, 0])


def calm(drawn, net: VGGTConfig):
    """Drawn heads that begin by saying hardly more than: every camera stands where the
    first does and sees a radian, every point lies one unit before it.

    Drawn at random they begin metres away and turned about, whatever they see, and the
    projection of points by a pose then says nothing for hundreds of steps.
    """
    leaves, camera = flat(drawn), np.array([0, 0, 0, 0, 0, 0, 1, 1, 1], np.float32)
    starts: dict[str, np.ndarray] = {
        "point/out2": np.array([0, 0, np.log(2), 0], np.float32)
    }  # expm1 follows
    if net.camera:
        starts["camera/branch/out"] = camera / net.camera.iterations
    if net.wrist:
        starts["wrist/refine/branch/out"] = camera / net.wrist.pose.iterations
    for layer, start in starts.items():
        kernel, bias = f"{layer}/kernel", f"{layer}/bias"
        if bias in leaves:
            leaves |= {kernel: 0.01 * leaves[kernel], bias: leaves[bias] + start}
    return tree(leaves)


def at_the_mean(begun, net: VGGTConfig, wrist, size: tuple[int, int]):
    """Parameters whose wrist head begins by saying the camera in the middle of encodings
    f[N,9]: only how moments differ is then left to learn.

    A gripper's camera is turned by about half a turn from an anchor's, where w of a
    quaternion is 0 and q and -q are as near: from the identity the mean of both is learned
    first, and hundreds of steps are spent on saying one constant.
    """
    poses, K = decode_pose(wrist, *size)
    start = encode_pose(jnp.float32(mean_pose(poses)), K.mean(0), *size)
    bias = "wrist/refine/branch/out/bias"
    return tree(flat(begun) | {bias: np.float32(start / net.wrist.pose.iterations)})


def seen(batch, prefix: str) -> Seen:
    """The geometry of the anchors (""), or of the wrist view ("wrist_")."""
    return Seen(*(batch[prefix + name] for name in Seen._fields))


def wrist_errors(said: Geometry, aim: Targets, size: tuple[int, int]) -> dict[str, Any]:
    """Means over the batch: metres between the camera's places, degrees between turns."""
    (ours, _), (true, _) = (decode_pose(x, *size) for x in (said.wrist[-1], aim.wrist))
    apart = se3.invert(ours)[:, :3, 3] - se3.invert(true)[:, :3, 3]
    turn = jnp.einsum("bij,bkj->bik", ours[:, :3, :3], true[:, :3, :3], precision="highest")
    return {
        "wrist_metres": (jnp.linalg.norm(apart, axis=-1) * aim.unit).mean(),
        "wrist_degrees": jnp.rad2deg(se3.rotation_angle(turn)).mean(),
    }


def drawn(batch, scene: Scene) -> np.ndarray:
    """What the wrist camera sees of the points, u8[B,H,W,3]; both as the network says."""
    _, _, H, W, _ = scene.points.shape
    eyes = np.asarray(se3.invert(scene.anchors))[..., :3, 3]
    known = np.ones((1, *scene.confidence.shape[1:]), bool)
    maps = []
    for i, K in enumerate(scene.K):
        anchors = Anchors(
            scene.points[i, None], batch["rgb"][i, None], known, eyes[i, None]
        )
        camera = Camera(W, H, np.asarray(K), jnp.asarray(scene.cam_from_world[i]))
        maps.append(np.asarray(condition_map(anchors, camera).rgb[0]))
    return np.stack(maps)


def build(config) -> GeometryTask:
    """The task of a config."""
    data, model = config["data"], config["model"].to_dict()
    trains, base = tuple(model.pop("trains")), model.pop("base")
    net = from_entry(VGGTConfig, model, "config.model")
    for name in ("camera", "point", "wrist"):
        if getattr(net, name) is None:
            raise InputError(f"config.model.{name}=None: this task needs the head")
    parts = {"aggregator", "camera", "depth", "point", "track", "wrist"}
    unknown = sorted(set(trains) - parts)
    if unknown:
        raise InputError(
            f"config.model.trains: {', '.join(unknown)}; need some of {', '.join(parts)}"
        )
    losses = config["loss"].to_dict()
    defects = filled(Defects, losses.pop("defects", {}), "loss.defects")
    losses = filled(LossConfig, losses | {"defects": defects}, "loss")
    if losses.depth and net.depth is None:
        raise InputError(f"config.loss.depth={losses.depth:g}, but config.model.depth=None")
    net.grid(data["height"], data["width"])
    return GeometryTask(
        VGGT(net),
        trains,
        base,
        losses,
        config["pairs"],
        len(data["view"]) - 1,
        data["height"],
        data["width"],
    )
