"""Spatial projection consistency beside a loop over pairs: value and gradient, same pairs.

    python bench/spc.py [--pairs 4096] [--repeats 5]

The loop is what the released training does, written anew from its description in PyTorch:
for every pair the neighbours of a pixel are looked up and weighed, the point is moved and
projected, and its depth is brought to the host to choose between the two errors. Both sides
run on the CPU in float32, on two samples of two anchors of 294 x 518 pixels; the shortest
of the repeats count.
"""

import argparse
import math
import time

import jax
import numpy as np
import torch

from w4d_jax.kin.match import Pairs
from w4d_jax.kin.pose import decode_pose
from w4d_jax.train.spc import consistency, released_loss, sure_not_negative

B, V, H, W = 2, 2, 294, 518
THRESHOLD = 0.2


def make(pairs: int):
    """Smooth surfaces, pairs anywhere; one sample before the camera, one behind it."""
    rng = np.random.default_rng(0)
    P = pairs // B
    v, u = np.mgrid[:H, :W] / 100
    depth = 2 + 0.3 * np.sin(3 * u) * np.cos(2 * v)
    surface = (
        np.stack([u - W / 200, v - H / 200, np.ones((H, W))], -1) * depth[..., None] / 4
    )
    points = np.broadcast_to(surface, (B, V, H, W, 3))
    encoding = np.column_stack([rng.normal(0, 0.1, (B, 7)), np.ones((B, 2))])
    encoding[:, 6] += 1.0
    encoding[:, 2] += [0.5, -3.0]
    K = np.tile([[400.0, 0, W / 2], [0, 400, H / 2], [0, 0, 1]], (B, 1, 1))
    found = Pairs(
        rng.uniform(0.5, [W - 0.5, H - 0.5], (B, P, 2)),
        rng.uniform(0, [W, H], (B, P, 2)),
        rng.integers(0, V, (B, P)),
        rng.uniform(0, 1, (B, P)),
    )
    return jax.tree.map(
        lambda x: x.astype(np.int32 if x.dtype == int else np.float32),
        (encoding, points, K, found),
    )


def ours(encoding, points, K, pairs):
    pose, _ = decode_pose(encoding, H, W)
    valid = sure_not_negative(pairs, H, W, THRESHOLD)
    return released_loss(consistency(points, pose, K, pairs, valid, (H, W), near=0.0))


def rotation(quat):
    """x y z w of any length -> f[3,3]."""
    x, y, z, w = quat / quat.norm()
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row) for row in rows])


def lift(image, u, v):
    """image f[H,W,3] between its pixels."""
    height, width, _ = image.shape
    left, top = math.floor(u), math.floor(v)
    x, y = u - left, v - top
    left, right = (min(max(i, 0), width - 1) for i in (left, math.ceil(u)))
    top, bottom = (min(max(i, 0), height - 1) for i in (top, math.ceil(v)))
    above = (1 - x) * image[top, left] + x * image[top, right]
    below = (1 - x) * image[bottom, left] + x * image[bottom, right]
    return (1 - y) * above + y * below


def loop(encoding, points, K, pairs):
    terms = []
    for b in range(B):
        R, t = rotation(encoding[b, 3:7]), encoding[b, :3]
        for j in range(pairs.view.shape[1]):
            u, v = pairs.anchor_uv[b, j] - 0.5
            if pairs.confidence[b, j].item() <= THRESHOLD or u.item() < 0 or v.item() < 0:
                continue
            X = R @ lift(points[b, pairs.view[b, j].item()], u.item(), v.item()) + t
            if X[2].item() > 0:
                uv = (K[b] @ (X / X[2]))[:2]
                square = ((uv - pairs.wrist_uv[b, j]) ** 2).mean()
                terms.append(30 * square / (H**2 + W**2))
            else:
                terms.append(torch.relu(-X[2]))
    return torch.stack(terms).mean()


def run_loop(encoding, points, K, pairs):
    """-> value, gradient, seconds."""
    encoding = torch.tensor(encoding, requires_grad=True)
    points, K, *pairs = (torch.tensor(x) for x in (points, K, *pairs))
    start = time.perf_counter()
    value = loop(encoding, points, K, Pairs(*pairs))
    value.backward()
    return value.item(), encoding.grad.numpy(), time.perf_counter() - start


def run_ours(argnums, given, repeats: int):
    function = jax.jit(jax.value_and_grad(ours, argnums))
    given = jax.device_put(given)
    start = time.perf_counter()
    jax.block_until_ready(function(*given))
    first = time.perf_counter() - start
    seconds = []
    for _ in range(20 * repeats):
        start = time.perf_counter()
        found = jax.block_until_ready(function(*given))
        seconds.append(time.perf_counter() - start)
    return found, min(seconds), first


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    given = make(options.pairs)
    loops = [run_loop(*given) for _ in range(options.repeats)]
    value, gradient, _ = loops[0]
    seconds = min(s for _, _, s in loops)
    print(f"{options.pairs} pairs, loop: {1e3 * seconds:.0f} ms")
    for name, argnums in (("pose", 0), ("pose and points", (0, 1))):
        (found, slope), mine, first = run_ours(argnums, given, options.repeats)
        slope = slope if argnums == 0 else slope[0]
        apart = np.abs(slope - gradient).max() / np.abs(gradient).max()
        print(
            f"ours, gradient by {name}: {1e3 * mine:.3f} ms (first call {first:.2f} s), "
            f"{seconds / mine:.0f}x; apart by {abs(found / value - 1):.1e} in value, "
            f"{apart:.1e} in gradient"
        )


if __name__ == "__main__":
    main()
