"""Rematerialisation by name: what of a layer the backward pass keeps, and where.

A layer names its input `block` and `attend` its result; a policy keeps names. Without any
("none" in a config) everything is kept.
"""

import jax

policies = jax.checkpoint_policies


def _cudnn(primitive, *operands, **_) -> bool:
    """cuDNN's kernel names nothing: it is known by itself, self-attention by its shapes."""
    if primitive.name != "dot_product_attention_fwd_wrapper":
        return False
    query, key = operands[:2]
    return query.shape == key.shape


REMAT = {
    # A layer's input alone: least memory, and everything is computed twice.
    "full": policies.nothing_saveable,
    # Also what self-attention gave (a matrix of the input's size), which is then not run
    # again: more than half of a long video's work. On a CPU no slower than "none".
    "attention": policies.save_from_both_policies(
        policies.save_only_these_names("self_attention"), _cudnn
    ),
    # Both, in the host's memory: for long videos on small devices.
    "offload": policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["block", "self_attention"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}
