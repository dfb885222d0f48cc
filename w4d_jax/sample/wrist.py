"""WristWorld's product: a wrist video of any length, from anchor videos and a map."""

import jax
import jax.numpy as jnp

from w4d_jax.sample.guidance import guided
from w4d_jax.sample.windows import windows
from w4d_jax.train.denoise import draw
from w4d_jax.train.wristworld import Video, WristWorldTask

TIME = {"map": 1, "valid": 1, "anchors": 2}  # the axis of frames


def wrist_video(
    task: WristWorldTask, params, frozen, batch, key, overlap: int | None = None
) -> Video:
    """Samples the batch of train/wristworld.py, whose clips may have any number of frames.

    overlap: latent frames that neighbouring windows share (sample/windows.py); None is a
    third of a window. A clip is lengthened to what windows take by repeating its last
    frame, and the video cut again.
    """
    stride, wanted = task.codec.stride[0], batch["map"].shape[1]
    missing = max(task.frames - wanted, (1 - wanted) % stride)
    total = 1 + (wanted + missing - 1) // stride
    length = task.grid[0]
    third = min(max(1, length // 3), length - 2)
    plan = windows(total, length, third if overlap is None else overlap)

    def part(name, start):
        at = jnp.arange(task.frames) + stride * start
        return jnp.take(batch[name], jnp.minimum(at, wanted - 1), TIME[name])

    parts = {name: jnp.stack([part(name, m) for m in plan.starts]) for name in TIME}
    known = jax.lax.map(lambda part: task.known(frozen, part), parts)

    def velocity(x, sigma, timestep):
        def one(window):
            x, known = window
            given, other = task.velocity(params, frozen, known)
            return guided(given, other, task.sampler.scale)(x, sigma, timestep)

        return plan.mixed(jax.lax.map(one, (x, known)))

    shape = (len(batch["map"]), total, *task.grid[1:], task.codec.channels)
    x = plan.cut(jax.random.normal(key, shape))
    x = plan.joined(draw(task.sampler, velocity, None, x))
    return Video(task.decode(frozen, x).rgb[:, :wanted])
