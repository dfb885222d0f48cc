"""The networks beside the public classes of diffusers and transformers, at random weights;
and files of weights between them, there and back.

Golden files hold the same comparison at one size; here are other sizes, in one module,
because importing the libraries takes longer than running them.
"""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
from golden import close, jit, last
from vocabulary import write_vocabulary

from w4d_jax.data.tokens import load_tokenizer
from w4d_jax.nets import clip, dit, text, vae
from w4d_jax.nets.clip_image import cropped, squeezed
from w4d_jax.nets.clip_names import clip_from_torch
from w4d_jax.nets.text_names import text as text_table
from w4d_jax.nets.torch_zip import open_torch
from w4d_jax.nets.vae_names import vae as vae_table
from w4d_jax.nets.wan_names import wan
from w4d_jax.nets.weights import from_torch
from w4d_jax.sample.solver import euler_schedule, integrate, unipc, unipc_schedule
from w4d_jax.types import InputError


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Imported by the process that runs these tests, not by each that collects them."""
    global convert_wan_transformer_to_diffusers, convert_wan_vae_to_diffusers
    global diffusers, load_file, peft, save_file, torch, transformers
    import diffusers
    import peft
    import torch
    import transformers
    from diffusers.loaders.single_file_utils import (
        convert_wan_transformer_to_diffusers,
        convert_wan_vae_to_diffusers,
    )
    from safetensors.torch import load_file, save_file


@pytest.fixture(autouse=True)
def exact():
    with jax.default_matmul_precision("highest"), torch.inference_mode():
        yield


def drawn(model):
    """The model in evaluation with no weight at zero or one, and those weights."""
    source = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=source)
        if "norm" in name and name.endswith(("weight", "gamma")):
            noise = 1 + 0.2 * noise
        else:
            noise *= weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.2
        weight.data.copy_(noise)
    return model.eval(), {k: v.numpy() for k, v in model.state_dict().items()}


def noise(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("image_tokens", [0, 5])
def test_video_transformer(image_tokens):
    """Text-to-video; image-to-video has its image tokens found by counting 512 of text."""
    channels, length = (36, 512) if image_tokens else (16, 9)
    theirs, weights = drawn(
        diffusers.WanTransformer3DModel(
            num_attention_heads=3, attention_head_dim=18, in_channels=channels,
            out_channels=16, text_dim=10, freq_dim=20, ffn_dim=40, num_layers=2,
            image_dim=14 if image_tokens else None,
            added_kv_proj_dim=54 if image_tokens else None,
        )
    )  # fmt: skip
    config = dit.DiTConfig(
        in_channels=channels, out_channels=16, width=54, heads=3, layers=2, ffn=40,
        frequencies=20, text_dim=10, image_dim=14 if image_tokens else 0,
    )  # fmt: skip
    params = {"params": from_torch(wan(config), weights)}
    forward = jit(dit.Wan(config).apply)
    for batch, *size in ((2, 3, 4, 6), (1, 1, 2, 2))[: 1 if image_tokens else 2]:
        x = noise(batch, channels, *size)
        time = np.linspace(999, 20.5, batch).astype(np.float32)
        words = noise(batch, length, 10)
        image = noise(batch, image_tokens, 14) if image_tokens else None
        velocity = theirs(
            torch.tensor(x),
            torch.tensor(time),
            torch.tensor(words),
            None if image is None else torch.tensor(image),
        ).sample.numpy()
        ours = forward(params, last(x), time, words, image)
        close(ours, last(velocity), 1e-4)


@pytest.mark.parametrize(
    ("base", "multipliers", "blocks", "temporal", "frames"),
    [(4, (1, 2, 4, 4), 1, (False, True, True), 5), (6, (1, 3), 2, (True,), 9)],
)
def test_video_autoencoder(base, multipliers, blocks, temporal, frames):
    theirs, weights = drawn(
        diffusers.AutoencoderKLWan(
            base_dim=base, dim_mult=list(multipliers), num_res_blocks=blocks,
            temperal_downsample=list(temporal),
        )
    )  # fmt: skip
    config = vae.VAEConfig(base, multipliers, blocks, temporal)
    params = from_torch(vae_table(config), weights)
    x = np.tanh(noise(1, 3, frames, 8, 16))
    posterior = theirs.encode(torch.tensor(x)).latent_dist
    mean, logvar = jit(vae.encode, static_argnums=1)(params, config, last(x))
    close(mean, last(posterior.mean.numpy()), 1e-4)
    close(logvar, last(posterior.logvar.numpy()), 1e-4)
    z = noise(*posterior.mean.shape)
    video = theirs.decode(torch.tensor(z)).sample.numpy()
    decoded = jit(vae.decode, static_argnums=1)(params, config, last(z))
    close(decoded, last(video), 1e-4)


@pytest.mark.parametrize(("layers", "lengths"), [(1, (6, 3)), (3, (140, 1))])
def test_text_encoder(layers, lengths):
    """140 tokens reach the last bucket of relative positions; padding is not looked at."""
    theirs, weights = drawn(
        transformers.UMT5EncoderModel(
            transformers.UMT5Config(
                vocab_size=50, d_model=20, d_kv=6, d_ff=36, num_layers=layers, num_heads=4
            )
        )
    )
    config = text.TextConfig(50, 20, 4, 6, layers, 36)
    params = {"params": from_torch(text_table(config), weights)}
    encode = jit(text.TextEncoder(config).apply)
    ids = np.random.default_rng(2).integers(2, 50, (2, max(lengths)))
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    states = theirs(torch.tensor(ids), torch.tensor(mask)).last_hidden_state
    ours = encode(params, ids, mask)
    close(ours[mask], states.numpy()[mask], 1e-4)
    assert not np.any(ours[~mask])


def test_buckets_of_relative_positions_at_every_distance():
    config = text.TextConfig()
    module = transformers.models.umt5.modeling_umt5.UMT5Attention
    attention = module(transformers.UMT5Config(), has_relative_attention_bias=True)
    away = torch.arange(600)[None] - torch.arange(600)[:, None]
    theirs = attention._relative_position_bucket(away)
    np.testing.assert_array_equal(text.relative_buckets(600, config), theirs.numpy())


@pytest.mark.parametrize(("patch", "layers"), [(14, 2), (7, 4)])
def test_image_encoder(patch, layers):
    theirs, weights = drawn(
        transformers.CLIPVisionModel(
            transformers.CLIPVisionConfig(
                hidden_size=36, intermediate_size=50, num_hidden_layers=layers,
                num_attention_heads=3, patch_size=patch, image_size=28, hidden_act="gelu",
            )
        )
    )  # fmt: skip
    config = clip.ClipConfig(36, 3, layers, 50, patch, 28)
    params = {"params": clip_from_torch(config, weights)}
    net = clip.ClipVision(config)
    x = noise(2, 3, 28, 28)
    out = theirs(torch.tensor(x), output_hidden_states=True)
    tokens, pooled = jit(lambda p, x: net.apply(p, x, method="whole"))(params, last(x))
    close(jit(net.apply)(params, last(x)), out.hidden_states[-2].numpy(), 1e-4)
    close(tokens, out.last_hidden_state.numpy(), 1e-4)
    close(pooled, out.pooler_output.numpy(), 1e-4)


@pytest.mark.parametrize("size", [(480, 720), (300, 200), (48, 72)])
def test_pixels_for_the_image_encoder(size):
    image = np.random.default_rng(3).integers(0, 256, (*size, 3), np.uint8)
    processor = transformers.CLIPImageProcessorPil()
    theirs = processor(images=image, return_tensors="np").pixel_values
    away = np.abs(cropped(image[None]) - last(theirs))
    # In whole numbers they round ties the other way: one step of 255 in a few pixels.
    assert away.max() < 1.01 / 255 / min(processor.image_std)
    assert np.mean(away > 1e-5) < 2e-4

    # In float64: their float32 coordinates alone are 3e-4 off.
    unit = torch.tensor(image / 127.5 - 1).permute(2, 0, 1)[None]
    square = torch.nn.functional.interpolate(
        unit, size=(224, 224), mode="bicubic", align_corners=False
    )
    mean, std = (
        torch.tensor(x)[:, None, None] for x in (processor.image_mean, processor.image_std)
    )
    close(squeezed(image[None]), last(((square / 2 + 0.5 - mean) / std).numpy()), 1e-5)


@pytest.mark.parametrize(("steps", "shift"), [(1, 3.0), (2, 1.0), (5, 5.0), (20, 3.0)])
def test_unipc(steps, shift):
    theirs = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    # As in diffusers 0.34, which the reference runs with; later ones start from 1.
    theirs.set_timesteps(sigmas=np.linspace(0.999, 0, steps + 1)[:-1])
    schedule = unipc_schedule(steps, shift)
    np.testing.assert_allclose(schedule.sigmas, theirs.sigmas, atol=1e-6)
    np.testing.assert_array_equal(schedule.timesteps, theirs.timesteps)

    def velocity(x, timestep):
        return 0.8 * x[::-1] + 0.3 * timestep / 1000

    x = state = noise(4, 7)
    for timestep in theirs.timesteps:
        slope = torch.tensor(velocity(state, timestep.numpy()).copy())
        state = theirs.step(slope, timestep, torch.tensor(state)).prev_sample.numpy()
    end = integrate(lambda x, sigma, t: velocity(x, t), x, schedule, unipc)
    close(end, state, 2e-5)


@pytest.mark.parametrize(("steps", "shift"), [(1, 1.0), (7, 1.0), (50, 3.0)])
def test_euler_levels(steps, shift):
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(steps)
    schedule = euler_schedule(steps, shift)
    np.testing.assert_array_equal(schedule.sigmas, theirs.sigmas)
    np.testing.assert_array_equal(schedule.timesteps, theirs.timesteps)


def test_tokens(tmp_path):
    """Both files of a vocabulary give the ids of transformers' tokenizer."""
    write_vocabulary(tmp_path / "spiece.model")
    theirs = transformers.T5Tokenizer.from_pretrained(tmp_path, extra_ids=0)
    theirs.save_pretrained(tmp_path)
    texts = ["the robot  picks\tup &amp;amp; places", "", "ünïcode 机器人 arm", "arm " * 40]
    cleaned = ["the robot picks up & places", "", "ünïcode 机器人 arm", ("arm " * 40)[:-1]]
    wanted = theirs(cleaned, padding="max_length", max_length=24, truncation=True)
    for name in ("spiece.model", "tokenizer.json"):
        ids, mask = load_tokenizer(tmp_path / name)(texts, 24)
        np.testing.assert_array_equal(ids, wanted["input_ids"])
        np.testing.assert_array_equal(mask, wanted["attention_mask"])


# ------ files

TOOL = Path(__file__).parents[1] / "tools" / "convert.py"
SPEC = importlib.util.spec_from_file_location("convert", TOOL)
convert = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(convert)


def through_ours(kind: str, source: Path, *arguments) -> Path:
    """Imports what a library saved, and exports it again."""
    ours, back = (source.with_name(f"{source.name}_{x}") for x in ("ours", "back"))
    assert convert.main(["import", "--kind", kind, str(source), str(ours)]) == 0
    assert convert.main(["export", "--kind", kind, str(ours), str(back), *arguments]) == 0
    return back


def equal(ours, theirs) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def test_files_of_the_video_transformer_and_its_adapter(tmp_path):
    """Shards; Wan2.1's names; PEFT's pairs apart and merged, with 4DNeX's bare tensor."""
    model, _ = drawn(
        diffusers.WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=36, out_channels=16,
            text_dim=10, freq_dim=16, ffn_dim=20, num_layers=2, image_dim=14,
            added_kv_proj_dim=24,
        )
    )  # fmt: skip
    inputs = {
        "hidden_states": torch.tensor(noise(1, 36, 2, 4, 4)),
        "timestep": torch.tensor([321.5]),
        "encoder_hidden_states": torch.tensor(noise(1, 512, 10)),
        "encoder_hidden_states_image": torch.tensor(noise(1, 5, 14)),
    }
    model.save_pretrained(tmp_path / "wan", max_shard_size="20KB")
    assert len(list((tmp_path / "wan").glob("*.safetensors"))) > 2
    again = diffusers.WanTransformer3DModel.from_pretrained(
        through_ours("wan", tmp_path / "wan")
    )
    equal(again.state_dict(), model.state_dict())
    plain = model(**inputs).sample
    assert torch.equal(again(**inputs).sample, plain)

    base, own = str(tmp_path / "wan_ours"), tmp_path / "own"
    assert convert.main(["export", "--kind", "wan-original", base, str(own)]) == 0
    renamed = convert_wan_transformer_to_diffusers(load_file(*own.glob("*.safetensors")))
    equal(renamed, model.state_dict())

    config = peft.LoraConfig(
        r=4, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"],
        init_lora_weights=False,
    )  # fmt: skip
    model.add_adapter(config)
    adapted = model(**inputs).sample
    assert (adapted - plain).abs().max() > 1e-2
    pairs = peft.get_peft_model_state_dict(model, adapter_name="default")
    (tmp_path / "nex").mkdir()
    save_file(
        {f"transformer.{name}": x.contiguous() for name, x in pairs.items()},
        tmp_path / "nex" / "pytorch_lora_weights.safetensors",
    )
    torch.save(torch.ones(2, 24), tmp_path / "nex" / "learnable_domain_embeddings.pt")
    merged = tmp_path / "merged"
    there = ["export", "--kind", "4dnex", "--base", base, str(tmp_path / "nex_ours")]
    back = through_ours("4dnex", tmp_path / "nex")
    assert convert.main([*there, str(merged)]) == 0
    domain = torch.load(back / "learnable_domain_embeddings.pt", weights_only=True)
    assert torch.equal(domain, torch.ones(2, 24))
    again.load_lora_adapter(load_file(back / "pytorch_lora_weights.safetensors"))
    again.set_adapters(["default_0"], [0.5])  # alpha / rank, which the file does not say
    assert (again(**inputs).sample - adapted).abs().max() < 1e-5
    whole = type(model).from_pretrained(merged / "transformer")
    assert (whole(**inputs).sample - adapted).abs().max() < 1e-5


def test_files_of_the_video_autoencoder(tmp_path):
    model, _ = drawn(diffusers.AutoencoderKLWan(base_dim=4))
    model.save_pretrained(tmp_path / "vae")
    again = diffusers.AutoencoderKLWan.from_pretrained(
        through_ours("vae", tmp_path / "vae")
    )
    equal(again.state_dict(), model.state_dict())
    own = ["export", "--kind", "vae-original", str(tmp_path / "vae_ours")]
    assert convert.main([*own, str(tmp_path / "own")]) == 0
    file = torch.load(tmp_path / "own" / "Wan2.1_VAE.pth", weights_only=True)
    equal(convert_wan_vae_to_diffusers(file), model.state_dict())


@pytest.mark.parametrize("kind", ["umt5", "clip"])
def test_files_of_the_encoders(kind, tmp_path):
    if kind == "umt5":
        config = transformers.UMT5Config(
            vocab_size=40, d_model=12, d_kv=5, d_ff=14, num_layers=2, num_heads=2,
            feed_forward_proj="gated-gelu",
        )  # fmt: skip
        model, _ = drawn(transformers.UMT5EncoderModel(config))
        given = torch.arange(12).reshape(2, 6)
    else:
        config = transformers.CLIPVisionConfig(
            hidden_size=12, intermediate_size=20, num_hidden_layers=3, patch_size=2,
            num_attention_heads=2, image_size=6, hidden_act="gelu",
        )  # fmt: skip
        model, _ = drawn(transformers.CLIPVisionModel(config))
        given = torch.tensor(noise(2, 3, 6, 6))
    model.save_pretrained(tmp_path / kind)
    again = type(model).from_pretrained(through_ours(kind, tmp_path / kind)).eval()
    assert torch.equal(again(given).last_hidden_state, model(given).last_hidden_state)


def test_archives_that_torch_saves(tmp_path):
    """Views, shared storages, parameters, half precision, weights beside other things."""
    path, whole = tmp_path / "a.pt", torch.arange(48.0).reshape(6, 8)
    views = {"a": whole.T[1:5, ::2], "b": whole[3], "c": whole[3, 3], "d": whole[:0]}
    for saved in (
        views,
        {"epoch": 3, "model": views, "optimizer": {"state": {0: {"step": whole}}}},
        {name: torch.nn.Parameter(x) for name, x in views.items()},
        {name: x.bfloat16() for name, x in views.items()},
    ):
        torch.save(saved, path)
        found = open_torch(path)
        assert found.keys() == views.keys()
        for name, x in views.items():
            np.testing.assert_array_equal(np.asarray(found[name], np.float32), x)
    torch.save(views, path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"version 1\.6"):
        open_torch(path)
