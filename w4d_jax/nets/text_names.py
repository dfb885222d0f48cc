"""Names of umT5's encoder, for `nets/weights.py`: transformers' and Wan2.1's own."""

from w4d_jax.nets.text import TextConfig
from w4d_jax.nets.weights import MATRIX, SAME, Tensor

# ours, transformers' UMT5EncoderModel, models_t5_umt5-xxl-enc-bf16.pth, layout.
BLOCK = (
    ("norm_self/scale", "layer.0.layer_norm", "norm1", SAME),
    ("self/q/kernel", "layer.0.SelfAttention.q", "attn.q", MATRIX),
    ("self/k/kernel", "layer.0.SelfAttention.k", "attn.k", MATRIX),
    ("self/v/kernel", "layer.0.SelfAttention.v", "attn.v", MATRIX),
    ("self/o/kernel", "layer.0.SelfAttention.o", "attn.o", MATRIX),
    (
        "self/bias",
        "layer.0.SelfAttention.relative_attention_bias",
        "pos_embedding.embedding",
        SAME,
    ),
    ("norm_ffn/scale", "layer.1.layer_norm", "norm2", SAME),
    ("gate/kernel", "layer.1.DenseReluDense.wi_0", "ffn.gate.0", MATRIX),
    ("ffn_in/kernel", "layer.1.DenseReluDense.wi_1", "ffn.fc1", MATRIX),
    ("ffn_out/kernel", "layer.1.DenseReluDense.wo", "ffn.fc2", MATRIX),
)
STEM = (
    ("embedding", "shared", "token_embedding", SAME),
    ("norm/scale", "encoder.final_layer_norm", "norm", SAME),
)


def text(config: TextConfig, original: bool = False) -> tuple[Tensor, ...]:
    """Table of `text.TextEncoder`: the names of transformers, or those of Wan2.1's file.

    transformers also has the embedding as `encoder.embed_tokens.weight`, one and the same
    array, which its files leave out.
    """
    column, block = (2, "blocks.{}.") if original else (1, "encoder.block.{}.")
    return (
        *(Tensor(row[0], f"{row[column]}.weight", row[3]) for row in STEM),
        *(
            Tensor(
                f"blocks/{row[0]}", f"{block}{row[column]}.weight", row[3], config.layers
            )
            for row in BLOCK
        ),
    )
