"""Names of the video autoencoder in diffusers' AutoencoderKLWan, for `nets/weights.py`."""

from w4d_jax.nets.vae import VAEConfig
from w4d_jax.nets.weights import PATCH, SAME, Layout, Tensor

FRAME = Layout(  # [out, in, h, w]: one picture at a time
    lambda a: a.transpose(2, 3, 1, 0)[None], lambda a: a[0].transpose(3, 2, 0, 1)
)
GAMMA_3D = Layout(lambda a: a[:, 0, 0, 0], lambda a: a[:, None, None, None])
GAMMA_2D = Layout(lambda a: a[:, 0, 0], lambda a: a[:, None, None])

VIDEO_CONV = (("/kernel", ".weight", PATCH), ("/bias", ".bias", SAME))
FRAME_CONV = (("/kernel", ".weight", FRAME), ("/bias", ".bias", SAME))
VIDEO_NORM = (("/scale", ".gamma", GAMMA_3D),)
FRAME_NORM = (("/scale", ".gamma", GAMMA_2D),)


def vae(config: VAEConfig) -> tuple[Tensor, ...]:
    """Table of `vae.init`'s tree, for `weights.from_torch` and `to_torch`."""
    modules = [
        ("encoder/quant", "quant_conv", VIDEO_CONV),
        ("decoder/quant", "post_quant_conv", VIDEO_CONV),
        *_encoder(config),
        *_decoder(config),
    ]
    return tuple(
        Tensor(ours + our_leaf, theirs + their_leaf, layout)
        for ours, theirs, kind in modules
        for our_leaf, their_leaf, layout in kind
    )


def _encoder(config: VAEConfig):
    """Their blocks and downsamplings are numbered through, ours by resolution."""
    widths = [config.base * m for m in (1, *config.multipliers)]
    number = 0
    for level in range(len(config.multipliers)):
        for block in range(config.blocks):
            shortcut = block == 0 and widths[level] != widths[level + 1]
            ours = f"encoder/level{level}_block{block}"
            yield from _residual(ours, f"encoder.down_blocks.{number}", shortcut)
            number += 1
        if level < len(config.temporal):
            theirs = f"encoder.down_blocks.{number}"
            yield f"encoder/level{level}_down", f"{theirs}.resample.1", FRAME_CONV
            if config.temporal[level]:
                yield f"encoder/level{level}_time", f"{theirs}.time_conv", VIDEO_CONV
            number += 1
    yield from _ends("encoder")


def _decoder(config: VAEConfig):
    """Their levels count from the coarsest; an upsampling hands half the channels on."""
    width = config.base * config.multipliers[-1]
    for number, level in enumerate(reversed(range(len(config.multipliers)))):
        theirs = f"decoder.up_blocks.{number}"
        target = config.base * config.multipliers[level]
        for block in range(config.blocks + 1):
            shortcut = block == 0 and width != target
            ours = f"decoder/level{level}_block{block}"
            yield from _residual(ours, f"{theirs}.resnets.{block}", shortcut)
        width = target // 2
        if level > 0:
            up = f"{theirs}.upsamplers.0"
            yield f"decoder/level{level}_up", f"{up}.resample.1", FRAME_CONV
            if config.temporal[level - 1]:
                yield f"decoder/level{level}_time", f"{up}.time_conv", VIDEO_CONV
    yield from _ends("decoder")


def _ends(part: str):
    yield f"{part}/conv_in", f"{part}.conv_in", VIDEO_CONV
    yield from _residual(f"{part}/middle/block0", f"{part}.mid_block.resnets.0")
    yield from _residual(f"{part}/middle/block1", f"{part}.mid_block.resnets.1")
    attention = f"{part}/middle/attention", f"{part}.mid_block.attentions.0"
    yield f"{attention[0]}/norm", f"{attention[1]}.norm", FRAME_NORM
    yield f"{attention[0]}/qkv", f"{attention[1]}.to_qkv", FRAME_CONV
    yield f"{attention[0]}/out", f"{attention[1]}.proj", FRAME_CONV
    yield f"{part}/norm_out", f"{part}.norm_out", VIDEO_NORM
    yield f"{part}/conv_out", f"{part}.conv_out", VIDEO_CONV


def _residual(ours: str, theirs: str, shortcut: bool = False):
    for i in (1, 2):
        yield f"{ours}/norm{i}", f"{theirs}.norm{i}", VIDEO_NORM
        yield f"{ours}/conv{i}", f"{theirs}.conv{i}", VIDEO_CONV
    if shortcut:
        yield f"{ours}/shortcut", f"{theirs}.conv_shortcut", VIDEO_CONV
