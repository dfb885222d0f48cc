"""Text and image encoders: sizes, names both ways, precision, tokens, and bad input."""

import dataclasses
import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import close, jit
from vocabulary import write_vocabulary

from w4d_jax.data.tokens import clean, load_tokenizer
from w4d_jax.nets.clip import ClipConfig, ClipVision, ImageEncoder
from w4d_jax.nets.clip_image import cropped
from w4d_jax.nets.clip_names import clip, clip_from_torch
from w4d_jax.nets.text import TextConfig, TextEncoder
from w4d_jax.nets.text_names import text
from w4d_jax.nets.weights import from_torch, to_torch
from w4d_jax.types import InputError

TEXT = TextConfig(vocabulary=30, width=16, heads=2, head_dim=6, layers=3, ffn=24)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), np.uint8)
CLIP = ClipConfig(width=24, heads=2, layers=3, ffn=32, patch=7, side=21)


def abstract(config):
    """The parameters' shapes and dtypes."""
    key = jax.random.key(0)
    if isinstance(config, TextConfig):
        ids = jnp.zeros((1, 4), int)
        return jax.eval_shape(TextEncoder(config).init, key, ids, ids)["params"]
    pixels = jnp.zeros((1, config.side, config.side, 3))
    init = ClipVision(config).init
    return jax.eval_shape(lambda: init(key, pixels, method="whole"))["params"]


@cache
def drawn(config):
    """Parameters without a zero or a one among them."""
    rng = np.random.default_rng(0)

    def draw(path, x):
        noise = rng.normal(size=x.shape).astype(np.float32)
        return 1 + 0.2 * noise if path[-1].key == "scale" else 0.25 * noise

    return jax.tree_util.tree_map_with_path(draw, abstract(config))


def size(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def test_published_parameter_counts():
    assert size(abstract(TextConfig())) == 5_680_910_336
    assert size(abstract(ClipConfig())) == 630_766_080


@pytest.mark.parametrize(
    ("config", "table"),
    [
        (TEXT, text(TEXT)),
        (TEXT, text(TEXT, original=True)),
        (CLIP, clip(CLIP)),
        (CLIP, clip(CLIP, "")),
        (CLIP, clip(CLIP, "visual.", original=True)),
    ],
)
def test_names_are_total_and_exact_both_ways(config, table):
    params = drawn(config)
    tensors = to_torch(table, params)
    jax.tree.map(np.testing.assert_array_equal, from_torch(table, tensors), params)
    name = next(iter(tensors))
    tensors["other"] = tensors.pop(name)
    with pytest.raises(InputError, match=rf"1 tensors missing \({name}\), 1 unknown"):
        from_torch(table, tensors)


def test_every_published_file_of_the_image_encoder_is_read():
    params = drawn(CLIP)
    fused = to_torch(clip(CLIP, "visual.", original=True), params)
    for i in range(CLIP.layers):
        for leaf in ("weight", "bias"):
            names = [f"visual.transformer.{i}.attn.to_{x}.{leaf}" for x in "qkv"]
            whole = np.concatenate([fused.pop(name) for name in names])
            fused[names[0].replace("to_q", "to_qkv")] = whole
    own = fused | {"visual.head": np.ones((24, 9)), "textual.norm.weight": np.ones(3)}
    numbered = {"vision_model.embeddings.position_ids": np.arange(10)[None]}
    for tensors in (
        own,
        to_torch(clip(CLIP), params) | numbered,
        to_torch(clip(CLIP, ""), params),
    ):
        jax.tree.map(np.testing.assert_array_equal, clip_from_torch(CLIP, tensors), params)
    with pytest.raises(InputError, match="is it another model"):
        clip_from_torch(CLIP, to_torch(text(TEXT), drawn(TEXT)))


def test_what_stands_behind_a_text_changes_nothing():
    encode = jit(TextEncoder(TEXT).apply)
    ids = np.array([[4, 9, 1, 0, 0, 0], [7, 7, 2, 8, 1, 0]])
    mask = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    params = {"params": drawn(TEXT)}
    states = encode(params, ids, mask)
    np.testing.assert_array_equal(encode(params, ids + 5 * (1 - mask), mask), states)
    close(encode(params, ids[:1, :3], mask[:1, :3])[0], states[0, :3], 1e-6)
    assert not np.any(states[0, 3:]) and np.all(np.any(states[0, :3], -1))


@pytest.mark.parametrize("config", [TEXT, CLIP])
def test_bfloat16_products_stay_near_float32(config):
    net, inputs = TextEncoder, (np.arange(12)[None], np.ones((1, 12)))
    if config is CLIP:
        net, inputs = ClipVision, (cropped(IMAGES, CLIP.side),)
    half = dataclasses.replace(config, dtype="bfloat16", param_dtype="bfloat16")
    rounded = jax.tree.map(lambda x, a: x.astype(a.dtype), drawn(config), abstract(half))
    assert {str(x.dtype) for x in jax.tree.leaves(rounded)} == {"bfloat16", "float32"}
    exact = jit(net(config).apply)({"params": drawn(config)}, *inputs)
    near = jit(net(half).apply)({"params": rounded}, *inputs)
    assert near.dtype == jnp.float32
    assert 1e-4 < np.linalg.norm(near - exact) / np.linalg.norm(exact) < 0.02


def test_an_image_encoder_sees_the_middle_and_each_image_alone():
    drawn_shapes = jax.eval_shape(ImageEncoder(None, CLIP).init, jax.random.key(0))
    encoder = ImageEncoder(drawn(CLIP), CLIP)
    assert jax.tree.map(np.shape, encoder) == jax.tree.map(np.shape, drawn_shapes)
    run = jit(lambda encoder, images: encoder(images))
    tokens = run(encoder, IMAGES)
    assert tokens.shape == (2, CLIP.tokens, CLIP.width) and tokens.dtype == jnp.float32
    changed = IMAGES.copy()
    changed[1], changed[0, :, [0, -1]] = 0, 0  # cropping 40 columns to 30 takes these away
    np.testing.assert_array_equal(run(encoder, changed)[0], tokens[0])
    assert np.abs(run(encoder, changed)[1] - tokens[1]).max() > 1e-2


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return write_vocabulary(tmp_path_factory.mktemp("vocabulary") / "spiece.model")


def test_a_prompt_is_ended_cut_and_padded(vocabulary):
    tokenizer = load_tokenizer(vocabulary)
    ids, mask = tokenizer(["the robot", "", "the " * 600])
    assert ids.shape == mask.shape == (3, 512) and ids.dtype == np.int32
    assert ids[1, 0] == tokenizer.end and mask[1].sum() == 1
    assert mask[2].all() and ids[2, -1] == tokenizer.end
    assert np.all(ids[mask == 0] == tokenizer.pad)


def test_cleaning():
    assert clean(" pick\tup\n the  &amp;amp; cup ") == "pick up the & cup"
    assert clean("the cafÃ© &lt;left&gt;") == "the café <left>"  # a wrong encoding, mended


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.json", None, "no such file"),
        ("vocab.txt", b"a b c", "need a tokenizer.json or a spiece.model"),
        ("tokenizer.json", b"{]", "cannot read it"),
        ("tokenizer.json", b"", "cannot read it"),
        ("spiece.model", b"no model", "cannot read it"),
        (
            "tokenizer.json",
            json.dumps(
                {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
            ),
            "has no <pad> or no </s>",
        ),
    ],
)
def test_a_bad_vocabulary_is_one_line(tmp_path, name, content, words):
    if content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words) as error:
        load_tokenizer(tmp_path / name)
    assert "\n" not in str(error.value) and name in str(error.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cropped(IMAGES / 255), r"float64 \(2, 30, 40, 3\), need u8"),
        (lambda: cropped(IMAGES[0]), r"need u8 \[B, H, W, 3\]"),
        (lambda: ClipConfig(layers=1), "need 2 layers or more"),
        (lambda: ClipConfig(patch=15), "patch that divide"),
        (
            lambda: ClipVision(CLIP).apply(
                {"params": drawn(CLIP)}, jnp.zeros((1, 20, 21, 3))
            ),
            r"need \[B, 21, 21, 3\]",
        ),
    ],
)
def test_wrong_images_and_sizes_are_one_line(call, words):
    with pytest.raises(InputError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
