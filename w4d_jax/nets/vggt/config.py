"""Sizes of VGGT and its heads, as data."""

import dataclasses

from w4d_jax.nets.remat import REMAT
from w4d_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """One transformer layer; norms and the residual stream are float32 whatever `dtype`."""

    heads: int
    eps: float = 1e-5
    qk_norm: bool = False
    layer_scale: float = 0.01  # at the start of training
    dtype: str = "float32"
    param_dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class PoseConfig:
    """A head that refines a camera step by step."""

    layers: int = 4
    heads: int = 16
    iterations: int = 4
    layer_scale: float = 0.01

    @property
    def block(self) -> BlockConfig:
        return BlockConfig(self.heads, layer_scale=self.layer_scale)


@dataclasses.dataclass(frozen=True)
class WristConfig:
    """WristWorld's head: `layers` gather all tokens into one, which is then refined.

    views: of a network with layers=0, in which one linear map gathers all tokens of so many
    views, whose patches are the grid of `positions`. It learns from nothing in hundreds of
    steps where the hand is and how it is turned, which layers do not.
    """

    layers: int = 3
    heads: int = 8
    dropout: float = 0.1
    pose: PoseConfig = PoseConfig()
    views: int = 0

    def __post_init__(self):
        row, layered = self.layers == 0 < self.views, self.views == 0 and self.layers > 1
        if not row and not layered:
            raise InputError(
                f"wrist.layers={self.layers}, wrist.views={self.views}: need 2 layers or "
                "more, or 0 and the number of views"
            )


@dataclasses.dataclass(frozen=True)
class DenseConfig:
    """A dense prediction transformer: channels of its four resolutions, fine to coarse.

    fine: channels of convolutions that halve the image, whose maps join the resolutions of
    their size. VGGT has none; where patches are coarse and tokens narrow, edges come so.
    """

    features: int = 256
    channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    fine: tuple[int, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "fine", tuple(self.fine))
        if self.features % 8 or any(n % 4 for n in self.channels):
            raise InputError(
                f"features={self.features}, channels={self.channels}: need multiples of 8 "
                "and of 4, for sines and cosines of two directions"
            )


@dataclasses.dataclass(frozen=True)
class TrackConfig:
    """Tracks of query points through the views."""

    dense: DenseConfig = DenseConfig(features=128)
    levels: int = 7  # of the pyramid of feature maps, each half the one before
    radius: int = 4  # of the window that is looked at, cells of each level
    width: int = 384
    layers: int = 6
    heads: int = 8
    virtual: int = 64  # tracks that stand for all others
    iterations: int = 4
    stride: int = 2  # pixels of a feature cell


@dataclasses.dataclass(frozen=True)
class VGGTConfig:
    """The defaults are WristWorld's: VGGT-1B and a wrist head. A head that is None is not
    there. dtype and param_dtype are the backbone's; heads work in float32."""

    stem: tuple[int, ...] = ()  # channels of convolutions that halve; DINOv2 has none
    patch: int = 14  # pixels of the image, whatever the stem
    positions: int = 37  # side of the learned grid of positions, patches
    width: int = 1024
    heads: int = 16
    layers: int = 24  # pairs of a frame block and a global block
    encoder_layers: int = 24
    encoder_heads: int = 16
    registers: int = 4  # of the encoder, and as many of the aggregator
    taps: tuple[int, ...] = (4, 11, 17, 23)  # layers that the dense heads see
    layer_scale: float = 0.01
    camera: PoseConfig | None = PoseConfig()
    depth: DenseConfig | None = DenseConfig()
    point: DenseConfig | None = DenseConfig()
    track: TrackConfig | None = TrackConfig()
    wrist: WristConfig | None = WristConfig()
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"  # or a name of remat.REMAT

    def __post_init__(self):
        object.__setattr__(self, "taps", tuple(self.taps))
        object.__setattr__(self, "stem", tuple(self.stem))
        if self.patch % 2 ** len(self.stem):
            raise InputError(
                f"patch={self.patch}: need a multiple of {2 ** len(self.stem)}, for a stem "
                f"of {len(self.stem)} convolutions that halve"
            )
        if self.track and self.track.dense.fine:
            raise InputError(
                f"track.dense.fine={self.track.dense.fine}: the track head sees no image; "
                "need ()"
            )
        for head in filter(None, (self.depth, self.point)):
            steps = {self.patch / 2**i for i in range(1, len(head.fine) + 1)}
            if not steps <= {8, 4, 2, 1, 0.5}:
                raise InputError(
                    f"patch={self.patch}: maps of fine={head.fine} are {sorted(steps)} "
                    "times the grid of patches; need 0.5, 1, 2, 4 or 8 times"
                )
        if self.width % (4 * self.heads) or self.width % self.encoder_heads:
            raise InputError(
                f"width={self.width}: need a multiple of 4 x heads={self.heads} and of "
                f"encoder_heads={self.encoder_heads}"
            )
        rising = all(a < b for a, b in zip(self.taps, self.taps[1:], strict=False))
        if len(self.taps) != 4 or not rising or self.taps[-1] != self.layers - 1:
            raise InputError(
                f"taps={self.taps}: need four rising layers, the last {self.layers - 1} "
                f"(layers={self.layers})"
            )
        if self.remat != "none" and self.remat not in REMAT:
            raise InputError(f"remat={self.remat!r}: need none, {', '.join(REMAT)}")

    @property
    def block(self) -> BlockConfig:
        """Of the alternating attention."""
        return BlockConfig(
            self.heads, 1e-5, True, self.layer_scale, self.dtype, self.param_dtype
        )

    @property
    def encoder_block(self) -> BlockConfig:
        return BlockConfig(
            self.encoder_heads, 1e-6, False, 1.0, self.dtype, self.param_dtype
        )

    @property
    def special(self) -> int:
        """Tokens of a view before its patches: the camera's and the registers."""
        return 1 + self.registers

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image; InputError where they do not fit."""
        for name, side in (("height", height), ("width", width)):
            if side < self.patch or side % self.patch:
                near = max(self.patch, self.patch * round(side / self.patch))
                raise InputError(
                    f"{name}={side}: need a multiple of patch={self.patch} (try {near})"
                )
        return height // self.patch, width // self.patch


def vggt_1b() -> dict:
    """facebook/VGGT-1B: what WristWorld adds its head to."""
    return {"wrist": None}


def vggt_tiny() -> dict:
    """1.3 M parameters; trains from random weights on a CPU."""
    pose = PoseConfig(layers=2, heads=4, layer_scale=1.0)
    dense = DenseConfig(32, (32, 32, 64, 64))
    return {
        "patch": 8,
        "positions": 8,
        "width": 64,
        "heads": 4,
        "layers": 4,
        "encoder_layers": 2,
        "encoder_heads": 4,
        "taps": (0, 1, 2, 3),
        "layer_scale": 1.0,
        "camera": pose,
        "depth": dense,
        "point": dense,
        "track": None,
        "wrist": WristConfig(2, 4, 0.0, pose),
    }
