"""Names of the video autoencoder, for `nets/weights.py`: diffusers' AutoencoderKLWan and
Wan2.1's own file."""

from w4d_jax.nets.vae import VAEConfig
from w4d_jax.nets.weights import PATCH, SAME, Layout, Tensor, rows

FRAME = Layout(  # [out, in, h, w]: one picture at a time
    lambda a: a.transpose(2, 3, 1, 0)[None], lambda a: a[0].transpose(3, 2, 0, 1)
)
GAMMA_3D = Layout(lambda a: a[:, 0, 0, 0], lambda a: a[:, None, None, None])
GAMMA_2D = Layout(lambda a: a[:, 0, 0], lambda a: a[:, None, None])

VIDEO_CONV = (("/kernel", ".weight", PATCH), ("/bias", ".bias", SAME))
FRAME_CONV = (("/kernel", ".weight", FRAME), ("/bias", ".bias", SAME))
VIDEO_NORM = (("/scale", ".gamma", GAMMA_3D),)
FRAME_NORM = (("/scale", ".gamma", GAMMA_2D),)


def vae(config: VAEConfig, original: bool = False) -> tuple[Tensor, ...]:
    """Table of `vae.init`'s tree: the names of diffusers, or those of Wan2.1_VAE.pth."""
    modules = (
        ("encoder/quant", "quant_conv", "conv1", VIDEO_CONV),
        ("decoder/quant", "post_quant_conv", "conv2", VIDEO_CONV),
        *_encoder(config),
        *_decoder(config),
    )
    return rows((row[0], row[2 if original else 1], row[3]) for row in modules)


# All of the following yield (ours, diffusers', Wan2.1's, kind).


def _encoder(config: VAEConfig):
    """Their blocks and downsamplings are numbered through, ours by resolution."""
    widths = [config.base * m for m in (1, *config.multipliers)]
    number = 0
    for level in range(len(config.multipliers)):
        for block in range(config.blocks):
            yield from _residual(
                f"encoder/level{level}_block{block}",
                f"encoder.down_blocks.{number}",
                f"encoder.downsamples.{number}",
                shortcut=block == 0 and widths[level] != widths[level + 1],
            )
            number += 1
        if level < len(config.temporal):
            yield from _resample(
                f"encoder/level{level}_down",
                f"encoder/level{level}_time",
                f"encoder.down_blocks.{number}",
                f"encoder.downsamples.{number}",
                config.temporal[level],
            )
            number += 1
    yield from _ends("encoder")


def _decoder(config: VAEConfig):
    """Their levels count from the coarsest; an upsampling hands half the channels on."""
    width = config.base * config.multipliers[-1]
    number = 0  # Wan2.1's numbering runs through
    for count, level in enumerate(reversed(range(len(config.multipliers)))):
        target = config.base * config.multipliers[level]
        for block in range(config.blocks + 1):
            yield from _residual(
                f"decoder/level{level}_block{block}",
                f"decoder.up_blocks.{count}.resnets.{block}",
                f"decoder.upsamples.{number}",
                shortcut=block == 0 and width != target,
            )
            number += 1
        width = target // 2
        if level > 0:
            yield from _resample(
                f"decoder/level{level}_up",
                f"decoder/level{level}_time",
                f"decoder.up_blocks.{count}.upsamplers.0",
                f"decoder.upsamples.{number}",
                config.temporal[level - 1],
            )
            number += 1
    yield from _ends("decoder")


def _resample(space: str, time: str, diffusers: str, own: str, temporal: bool):
    yield space, f"{diffusers}.resample.1", f"{own}.resample.1", FRAME_CONV
    if temporal:
        yield time, f"{diffusers}.time_conv", f"{own}.time_conv", VIDEO_CONV


def _ends(part: str):
    middle, theirs, own = f"{part}/middle", f"{part}.mid_block", f"{part}.middle"
    yield f"{part}/conv_in", f"{part}.conv_in", f"{part}.conv1", VIDEO_CONV
    yield from _residual(f"{middle}/block0", f"{theirs}.resnets.0", f"{own}.0")
    yield from _residual(f"{middle}/block1", f"{theirs}.resnets.1", f"{own}.2")
    for ours, name, kind in (
        ("norm", "norm", FRAME_NORM),
        ("qkv", "to_qkv", FRAME_CONV),
        ("out", "proj", FRAME_CONV),
    ):
        attention = f"{theirs}.attentions.0.{name}"
        yield f"{middle}/attention/{ours}", attention, f"{own}.1.{name}", kind
    yield f"{part}/norm_out", f"{part}.norm_out", f"{part}.head.0", VIDEO_NORM
    yield f"{part}/conv_out", f"{part}.conv_out", f"{part}.head.2", VIDEO_CONV


def _residual(ours: str, diffusers: str, own: str, shortcut: bool = False):
    for name, place, kind in (
        ("norm1", 0, VIDEO_NORM),
        ("conv1", 2, VIDEO_CONV),
        ("norm2", 3, VIDEO_NORM),
        ("conv2", 6, VIDEO_CONV),
    ):
        yield f"{ours}/{name}", f"{diffusers}.{name}", f"{own}.residual.{place}", kind
    if shortcut:
        shortcuts = f"{diffusers}.conv_shortcut", f"{own}.shortcut"
        yield f"{ours}/shortcut", *shortcuts, VIDEO_CONV
