"""Names of WristWorld's video checkpoint, for `nets/weights.py`.

The reference saves its transformer under `denoising_model.`, in Wan2.1's own names, with
`.module` in the names of convolutions and norms (its memory manager wraps those).
"""

import re

from w4d_jax.nets.wan_names import wan
from w4d_jax.nets.weights import LINEAR, SAME, Tensor
from w4d_jax.nets.wristworld import WristWorldConfig

WRAPPED = r"(patch_embedding|norm_q|norm_k|norm3)(?=\.)"
VIEWS = (
    ("views/in", "ext_proj.0", LINEAR),
    ("views/out", "ext_proj.3", LINEAR),
    ("views/time", "temporal_embed", (("", ".weight", SAME),)),
    ("views/view", "view_embed", (("", ".weight", SAME),)),
)


def wristworld(config: WristWorldConfig) -> tuple[Tensor, ...]:
    """Table of `wristworld.WristWorld`."""
    network = (
        row._replace(theirs="denoising_model." + re.sub(WRAPPED, r"\1.module", row.theirs))
        for row in wan(config.dit, original=True)
    )
    views = (
        Tensor(ours + our_leaf, theirs + their_leaf, layout)
        for ours, theirs, kind in VIEWS
        for our_leaf, their_leaf, layout in kind
    )
    return (*network, *views)
