"""Video <-> latent: what the denoiser works on, behind one interface.

A codec is a pytree (pass it to a jitted function as an argument, so that weights are not
baked into the program) with

    stride            (t, h, w), static
    channels          C of the latent, static
    init(key)         the codec with weights drawn at random; itself if it has none
    encode(video)     f[B,T,H,W,3] in [-1,1] -> f[B,t,h,w,C], T = 1 + k stride_t, t = 1 + k
    decode(latent)    the way back
    encode_pair(l, r), decode_pair(l, r)   two videos as one picture twice as wide: where a
                      codec sees far, the one is seen in the other

Both are causal in groups: latent frame 0 depends on frame 0 alone, latent frame k on
nothing after its own group. So the latent of a first image is known before the future is.
"""

import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from w4d_jax.nets import vae
from w4d_jax.nets.grid import latent_shape


class Codec(Protocol):
    """See the module's head."""

    @property
    def stride(self) -> tuple[int, int, int]: ...

    @property
    def channels(self) -> int: ...

    def init(self, key) -> "Codec": ...

    def encode(self, video) -> Any: ...

    def decode(self, latent) -> Any: ...

    def encode_pair(self, left, right) -> Any: ...

    def decode_pair(self, left, right) -> tuple[Any, Any]: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CosineCodec:
    """Weightless and exact: an orthonormal cosine transform of blocks t x h x w of pixels.

    decode(encode(x)) = x to float32 rounding. Frames 4k-3..4k are latent frame k; frame 0
    is a group of its own, itself repeated, so that a still video has the same latent in
    every frame and the temporal detail of frame 0 is zero. (Decoding averages its group:
    noise that a sampler leaves there is projected away.)

    Channels are (frequency, colour), frequencies from low to high with the block's mean
    first, so that a natural video's energy sits in the first channels. No channel is
    rescaled, on purpose: squared error of the latent is squared error of the pixels, and
    white noise of unit variance stays so. Diffusion here is diffusion of pixels in another
    basis. The mean of a block, sqrt(t h w) times its colour, stands out of the noise up to
    sigma about 0.8, so that noise levels want a shift of 3 or more. Scaling the channels to
    equal variance would instead make film grain weigh as much as the layout of the scene.
    """

    stride: tuple[int, int, int] = dataclasses.field(
        default=(4, 4, 4), metadata={"static": True}
    )

    @property
    def channels(self) -> int:
        return 3 * math.prod(self.stride)

    def init(self, key) -> "CosineCodec":
        del key
        return self

    def encode(self, video):
        """f[B,T,H,W,3] -> f[B,t,h,w,C]."""
        _, frames, height, width, _ = video.shape
        latent_shape(frames, height, width, self.stride)
        t, h, w = self.stride
        video = jnp.concatenate([jnp.repeat(video[:, :1], t - 1, 1), video], 1)
        x = rearrange(video, "b (t p) (h q) (w r) c -> b t h w p q r c", p=t, q=h, r=w)
        for axis, size in enumerate(self.stride, start=4):
            x = _multiply(cosines(size), x, axis)
        x = rearrange(x, "b t h w p q r c -> b t h w (p q r) c")[..., self._order, :]
        return rearrange(x, "b t h w f c -> b t h w (f c)")

    def decode(self, latent):
        """f[B,t,h,w,C] -> f[B,T,H,W,3]."""
        t, h, w = self.stride
        x = rearrange(latent, "b t h w (f c) -> b t h w f c", c=3)
        x = x[..., np.argsort(self._order), :]
        x = rearrange(x, "b t h w (p q r) c -> b t h w p q r c", p=t, q=h, r=w)
        for axis, size in enumerate(self.stride, start=4):
            x = _multiply(cosines(size).T, x, axis)
        video = rearrange(x, "b t h w p q r c -> b (t p) (h q) (w r) c")
        return jnp.concatenate([jnp.mean(video[:, :t], 1, keepdims=True), video[:, t:]], 1)

    def encode_pair(self, left, right):
        """f[B,T,H,W,3] twice -> f[B,t,h,2w,C]. A block sees nothing of the next."""
        return jnp.concatenate([self.encode(left), self.encode(right)], axis=3)

    def decode_pair(self, left, right):
        """f[B,t,h,w,C] twice -> f[B,T,H,W,3] twice."""
        return self.decode(left), self.decode(right)

    @property
    def _order(self) -> np.ndarray:
        """Frequencies (p q r) of a block from low to high, each axis counting equally."""
        # In whole numbers: rounding must not decide ties.
        weight = math.prod(self.stride) // np.array(self.stride)
        frequency = np.tensordot(weight, np.indices(self.stride), 1)
        return np.argsort(frequency.ravel(), kind="stable")


def cosines(n: int) -> np.ndarray:
    """The orthonormal cosine transform (type II): row k is frequency k. f32[n,n]."""
    k, i = np.arange(n)[:, None], np.arange(n)[None]
    basis = np.sqrt(2 / n) * np.cos(np.pi * k * (i + 0.5) / n)
    basis[0] = np.sqrt(1 / n)
    return basis.astype(np.float32)


def _multiply(matrix, x, axis: int):
    y = jnp.tensordot(matrix, x, axes=(1, axis), precision="highest")
    return jnp.moveaxis(y, 0, axis)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WanCodec:
    """The learned codec: Wan2.1's video autoencoder, latents normalised by channel.

    The middle of the network attends over a whole frame, so that two videos coded side by
    side and apart have different latents; the reference does both (condition and decoding
    joint, targets apart). Weights of bfloat16 make it work in bfloat16.
    """

    params: Any = None  # {"encoder", "decoder"} of nets/vae.py; None until `init`
    config: vae.VAEConfig = dataclasses.field(
        default=vae.VAEConfig(), metadata={"static": True}
    )
    # Latent frames at a time: 1 needs the least memory, None takes the whole clip.
    chunk: int | None = dataclasses.field(default=1, metadata={"static": True})
    dtype: str = dataclasses.field(default="float32", metadata={"static": True})  # drawn

    @property
    def stride(self) -> tuple[int, int, int]:
        return self.config.stride

    @property
    def channels(self) -> int:
        return self.config.latent

    def init(self, key) -> "WanCodec":
        params = vae.init(key, self.config)
        params = jax.tree.map(lambda a: a.astype(self.dtype), params)
        return dataclasses.replace(self, params=params)

    def encode(self, video, key=None):
        """f[B,T,H,W,3] -> f32[B,t,h,w,C]: the mode, or with a key a sample."""
        dtype = jax.tree.leaves(self.params)[0].dtype
        posterior = vae.encode(self.params, self.config, video.astype(dtype), self.chunk)
        latent = posterior.mean if key is None else posterior.sample(key)
        return vae.normalised(latent, self.config)

    def decode(self, latent):
        """f[B,t,h,w,C] -> f32[B,T,H,W,3] within [-1,1]."""
        dtype = jax.tree.leaves(self.params)[0].dtype
        latent = vae.denormalised(latent, self.config).astype(dtype)
        return vae.decode(self.params, self.config, latent, self.chunk).astype(jnp.float32)

    def encode_pair(self, left, right):
        """f[B,T,H,W,3] twice -> f32[B,t,h,2w,C], coded as one picture."""
        return self.encode(jnp.concatenate([left, right], axis=3))

    def decode_pair(self, left, right):
        """f[B,t,h,w,C] twice -> f32[B,T,H,W,3] twice, decoded as one picture."""
        video = self.decode(jnp.concatenate([left, right], axis=3))
        left, right = jnp.split(video, 2, axis=3)
        return left, right
