"""Convolutions before the patches, for networks that learn from nothing."""

from flax import linen as nn

from w4d_jax.nets.ops import conv3


class Stem(nn.Module):
    """x f[N,H,W,C] -> after each of n convolutions that halve, f[N,H/2^i,W/2^i,Ci].

    What a patch shows, wherever in it, is learned in fewer steps by convolutions (arXiv
    2106.14881). Each image's mean is taken out of each channel: the colours of table, wall
    and light, which tell nothing of where things are, would else be most of what varies.
    """

    channels: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        maps = []
        for i, channels in enumerate(self.channels):
            x = conv3(channels, f"conv{i}", stride=2)(x)
            x = nn.relu(nn.GroupNorm(channels, name=f"norm{i}")(x))
            maps.append(x)
        return maps
