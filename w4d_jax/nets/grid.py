"""The latent grid: which video sizes have one."""

from w4d_jax.types import InputError


def latent_shape(frames: int, height: int, width: int, stride) -> tuple[int, int, int]:
    """(t, h, w) of the latent, or InputError: 'frames=48: need 4k+1 (try 49)'."""
    s = stride[0]
    if frames < 1 or (frames - 1) % s:
        near = 1 + s * max(0, round((frames - 1) / s))
        raise InputError(f"frames={frames}: need {s}k+1 (try {near})")
    for side, value, s in (("height", height, stride[1]), ("width", width, stride[2])):
        if value < 1 or value % s:
            near = s * max(1, round(value / s))
            raise InputError(f"{side}={value}: need a multiple of {s} (try {near})")
    return 1 + (frames - 1) // stride[0], height // stride[1], width // stride[2]
