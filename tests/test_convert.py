"""tools/convert.py: round trips to the bit, merging, what does not fit, and what bites.

Without PyTorch; tests/test_oracles.py has it read what is written here.
"""

import importlib.util
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from w4d_jax.nets import lora
from w4d_jax.nets.adapter import (
    ADDED,
    DOMAIN,
    PAIRS,
    AdapterConfig,
    export_adapter,
    part,
)
from w4d_jax.nets.checkpoint import Checkpoint, as_entry, read_checkpoint
from w4d_jax.nets.clip import ClipConfig
from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.files import open_tensors
from w4d_jax.nets.kinds import KINDS, export_kind
from w4d_jax.nets.kinema4d import ADDED as KINEMA4D_ADDED
from w4d_jax.nets.kinema4d import LORA_TARGETS, Kinema4DConfig
from w4d_jax.nets.lazy import held
from w4d_jax.nets.models import MODELS
from w4d_jax.nets.text import TextConfig
from w4d_jax.nets.torch_zip import open_torch, write_torch
from w4d_jax.nets.vae import VAEConfig
from w4d_jax.nets.vggt.config import DenseConfig, PoseConfig, VGGTConfig, WristConfig
from w4d_jax.nets.weights import flat, from_torch, theirs, tree
from w4d_jax.nets.wristworld import WristWorldConfig
from w4d_jax.parity.golden import load
from w4d_jax.types import InputError

REPO = Path(__file__).parents[1]
GOLDEN = REPO / "tests" / "data" / "golden" / "kinema4d"
SPEC = importlib.util.spec_from_file_location("convert", REPO / "tools" / "convert.py")
convert = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(convert)

CONFIGS = {name: model.config for name, model in MODELS.items()}
CONFIGS |= {"adapter": AdapterConfig}
SMALL = DiTConfig(
    in_channels=36, width=24, heads=2, layers=2, ffn=20, frequencies=16, text_dim=10,
    image_dim=14,
)  # fmt: skip
SIZES = {
    "wan": SMALL,
    "vae": VAEConfig(base=4, multipliers=(1, 2, 2), blocks=1, temporal=(False, True)),
    "umt5": TextConfig(vocabulary=30, width=12, heads=2, head_dim=4, layers=2, ffn=16),
    "clip": ClipConfig(width=12, heads=2, layers=3, ffn=16, patch=2, side=6),
    "vggt": VGGTConfig(
        patch=2, positions=4, width=16, heads=2, layers=4, encoder_layers=2,
        encoder_heads=2, registers=1, taps=(0, 1, 2, 3), camera=PoseConfig(2, 2, 1),
        depth=DenseConfig(16, (4, 4, 4, 4)), point=None, track=None,
        wrist=WristConfig(2, 2, 0.0, PoseConfig(2, 2, 1)),
    ),
    "wristworld": WristWorldConfig(
        DiTConfig(in_channels=32, width=24, heads=2, layers=2, ffn=20, frequencies=16,
                  text_dim=10), feature_dim=6, hidden=8, frames=5,
    ),
}  # fmt: skip


def call(*arguments) -> int:
    return convert.main([str(a) for a in arguments])


def same(ours, theirs) -> bool:
    """Names, types and bits."""
    return ours.keys() == theirs.keys() and all(
        (a := np.asarray(ours[k])).dtype == (b := np.asarray(theirs[k])).dtype
        and a.shape == b.shape
        and a.tobytes() == b.tobytes()
        for k in theirs
    )


def files_of(folder: Path) -> dict:
    """All tensors in a folder, whatever files they are in."""
    held = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".safetensors", ".pth", ".pt"):
            held |= open_tensors(path)
    return held


@cache
def shapes_of(model) -> dict:
    return MODELS[model].shapes(SIZES[model])


def write_theirs(name, folder: Path, dtype="f4", limit=10**9) -> Path:
    """A checkpoint of one kind at its small size, in files of about `limit` bytes."""
    kind = KINDS[name]
    shapes = shapes_of(kind.model)
    rng = np.random.default_rng(0)
    leaves = {
        path: held(rng.normal(size=shape).astype(dtype)) for path, shape in shapes.items()
    }
    folder.mkdir()
    export_kind(name, Checkpoint(kind.model, SIZES[kind.model], leaves), folder, limit)
    return folder


def imported(name, source, target) -> Checkpoint:
    sizes = target.with_suffix(".json")
    entry = as_entry(SIZES[KINDS[name].model])
    sizes.write_text(json.dumps(entry))
    known = [] if KINDS[name].sizes else ["--config", sizes]
    assert call("import", "--kind", name, source, target, *known) == 0
    return read_checkpoint(target, CONFIGS)


@pytest.mark.parametrize(
    "name", [k for k, kind in KINDS.items() if kind.file and k != "vggt"]
)
def test_round_trip_to_the_bit(name, tmp_path, capsys):
    source = write_theirs(name, tmp_path / "theirs", limit=20_000)
    ours = imported(name, source, tmp_path / "ours")
    assert ours.model == KINDS[name].model and ours.config == SIZES[ours.model]
    assert call("export", "--kind", name, tmp_path / "ours", tmp_path / "back") == 0
    assert same(files_of(tmp_path / "back"), files_of(source))
    if KINDS[name].sizes:
        entries = [(f / "config.json").read_text() for f in (source, tmp_path / "back")]
        assert entries[0] == entries[1]
    assert "at its peak" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16])
def test_types_are_kept(dtype, tmp_path):
    source = write_theirs("wan", tmp_path / "theirs", dtype)
    ours = imported("wan", source, tmp_path / "ours")
    assert {leaf.dtype for leaf in ours.leaves.values()} == {np.dtype(dtype)}
    (tmp_path / "back").mkdir()
    export_kind("wan", ours, tmp_path / "back")
    assert same(files_of(tmp_path / "back"), files_of(source))


@pytest.mark.parametrize(
    ("name", "kind", "sizes"),
    [
        ("wan_i2v", "wan", lambda c: c["transformer"]),
        ("wan_t2v", "wan", lambda c: c["transformer"]),
        ("umt5", "umt5", lambda c: c),
        ("clip_vision", "clip", lambda c: c),
    ],
)
def test_files_that_the_libraries_wrote(name, kind, sizes, tmp_path):
    """Golden weights, which are in the original names."""
    golden = load(GOLDEN, name)
    source = tmp_path / "theirs"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(sizes(golden.config)))
    save_file(golden.weights, source / "model.safetensors")
    ours = imported(kind, source, tmp_path / "ours")
    expected = flat(from_torch(KINDS[kind].table(ours.config), golden.weights))
    assert same(ours.leaves, expected)
    (tmp_path / "back").mkdir()
    export_kind(kind, ours, tmp_path / "back")
    assert same(files_of(tmp_path / "back"), golden.weights)


def test_the_image_encoder_of_wan_s_own_file(tmp_path):
    """q, k and v are one matrix there, and a text tower is beside."""
    config = SIZES["clip"]
    shapes = shapes_of("clip")
    leaves = {path: np.random.normal(size=s).astype("f4") for path, s in shapes.items()}
    tensors = dict(theirs(KINDS["clip-original"].table(config), leaves))
    for name in [n for n in tensors if ".attn.to_q." in n]:
        parts = [np.asarray(tensors.pop(name.replace("to_q", f"to_{x}"))) for x in "qkv"]
        tensors[name.replace("to_q", "to_qkv")] = held(np.concatenate(parts))
    tensors |= {"visual.head": held(np.zeros(2)), "textual.x": held(np.zeros(2))}
    write_torch(tmp_path / "clip.pth", tensors)
    ours = imported("clip-original", tmp_path / "clip.pth", tmp_path / "ours")
    assert same(ours.leaves, leaves)
    assert call("export", "--kind", "clip-original", tmp_path / "ours", tmp_path / "x") == 2


# ------ adapters


RANK, ROBOT = 3, {"robot_width": 6, "robot_patch": 4, "robot_grid": (3, 1, 2)}


def write_adapter(kind, folder: Path) -> Path:
    """Kinema4D's or 4DNeX's files, on the small Wan."""
    config = AdapterConfig(2, RANK, variant="act" if kind == "kinema4d" else "", **ROBOT)
    net = Kinema4DConfig(SMALL, **config.robot()) if config.variant else SMALL
    rng = np.random.default_rng(1)
    shapes = {}
    for path, shape in MODELS[kind].shapes(net).items():
        if re.fullmatch(f"{LORA_TARGETS}/kernel", path):
            layers, above, below = shape
            pair = f"lora/{path.removesuffix('/kernel')}"
            shapes |= {
                f"{pair}/a": (layers, above, RANK),
                f"{pair}/b": (layers, RANK, below),
            }
        elif path.split("/")[0] in KINEMA4D_ADDED:
            shapes[f"added/{path}"] = shape
    leaves = {path: held(rng.normal(size=s).astype("f4")) for path, s in shapes.items()}
    folder.mkdir()
    export_adapter(folder, Checkpoint("adapter", config, leaves))
    return folder


@pytest.mark.parametrize("kind", ["kinema4d", "4dnex"])
def test_adapters(kind, tmp_path, capsys):
    """Apart and merged, there and back."""
    source = write_adapter(kind, tmp_path / "theirs")
    names = {path.name for path in source.iterdir()}
    assert names == {PAIRS, ADDED if kind == "kinema4d" else DOMAIN}
    here = [tmp_path / name for name in ("apart", "back", "wan", "one", "two", "three")]
    apart, back, base, *merged = here
    assert call("import", "--kind", kind, source, apart) == 0
    assert call("export", "--kind", kind, apart, back) == 0
    assert same(files_of(back), files_of(source))

    wan = imported("wan", write_theirs("wan", tmp_path / "their_wan"), base)
    on_base = ["--kind", kind, "--base", base]
    assert call("import", *on_base, source, merged[0]) == 0  # merged on the way in
    assert call("export", *on_base, apart, merged[1]) == 0  # or on the way out
    assert call("import", "--kind", kind, merged[1], merged[2]) == 0
    ours = [read_checkpoint(folder, CONFIGS) for folder in (merged[0], merged[2])]
    assert ours[0].model == ours[1].model == kind and ours[0].config == ours[1].config
    assert same(ours[0].leaves, ours[1].leaves)

    adapter = read_checkpoint(apart, CONFIGS)
    assert adapter.config.rank == RANK and adapter.config.scale == 0.5
    expected = lora.merge(
        *(tree({k: np.asarray(x) for k, x in leaves.items()})
          for leaves in (wan.leaves, part(adapter.leaves, "lora/"))), 0.5,
    )  # fmt: skip
    for path, leaf in flat(expected).items():
        np.testing.assert_allclose(ours[0].leaves[path], leaf, atol=1e-5)
    added = part(adapter.leaves, "added/")
    assert same({path: ours[0].leaves[path] for path in added}, added)
    assert "scale 0.5" in capsys.readouterr().out


# ------ what does not fit


def wan_file(folder: Path) -> Path:
    return folder / "diffusion_pytorch_model.safetensors"


def change(path: Path, **tensors) -> None:
    """None takes a tensor out."""
    found = load_file(path) | {name.replace("__", "."): x for name, x in tensors.items()}
    save_file({name: x for name, x in found.items() if x is not None}, path)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def resize(folder: Path, **sizes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | sizes))


HALF = np.ones(24, jnp.bfloat16)
WRONG = {
    "missing": (lambda f: change(wan_file(f), proj_out__bias=None),
                r"1 tensors missing \(proj_out.bias\), 0 unknown"),
    "unknown": (lambda f: change(wan_file(f), extra__scale=np.ones(1, "f4")),
                r"0 tensors missing \(none\), 1 unknown \(extra.scale\)"),
    "integers": (lambda f: change(wan_file(f), proj_out__bias=np.ones(64, "i4")),
                 "head/out/bias is int32, need float32, bfloat16 or float16"),
    "8 bits": (lambda f: change(wan_file(f), proj_out__bias=np.ones(64, "i1")),
               "head/out/bias is int8, need"),
    "one layer": (lambda f: change(wan_file(f), blocks__1__ffn__net__2__bias=HALF),
                  r"blocks.1.ffn.net.2.bias is bfloat16\[24\], layer 0 float32\[24\]"),
    "one shape": (lambda f: change(wan_file(f), proj_out__weight=np.ones(64, "f4")),
                  r"head/out/kernel is \[64\], need \[24, 64\]"),
    "cut": (lambda f: cut(wan_file(f), 20_000), "no whole .safetensors file"),
    "cut early": (lambda f: cut(wan_file(f), 5), "no whole .safetensors file"),
    "text": (lambda f: wan_file(f).write_text("hello, world"), "no whole .safetensors"),
    "no file": (lambda f: wan_file(f).unlink(), "need one weight file .* found none"),
    "two files": (lambda f: save_file({"a": np.ones(1)}, f / "b.safetensors"),
                  "need one weight file or one index"),
    "no sizes": (lambda f: (f / "config.json").unlink(), "give them by --config"),
    "no number": (lambda f: resize(f, num_layers=None), "layers=None, need a whole number"),
    "more layers": (lambda f: resize(f, num_layers=3), "32 tensors missing"),
    "wider": (lambda f: resize(f, ffn_dim=32), r"ffn_in/kernel is \[2, 24, 20\], need"),
    "text to video": (lambda f: resize(f, image_dim=None), "18 unknown"),
    "other norm": (lambda f: resize(f, qk_norm="layer_norm"), "qk_norm='layer_norm'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_this_model(case, tmp_path, capsys):
    """One line, status 2, and nothing half-written."""
    source = write_theirs("wan", tmp_path / "theirs")
    spoil, said = WRONG[case]
    spoil(source)
    assert call("import", "--kind", "wan", source, tmp_path / "ours") == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and error.count("\n") == 1, error
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


BESIDE = '{"weight_map": {"a": "../b"}}'


def index_of(shards) -> Path:
    return next(shards[0].parent.glob("*.index.json"))


def test_shards(tmp_path, capsys):
    """Each file that the index names, whole, with what the index says."""
    for spoil, said in (
        (lambda shards: shards[1].unlink(), "no whole .safetensors file"),
        (lambda shards: cut(shards[1], 3_000), "no whole .safetensors file"),
        (lambda shards: shards[1].write_bytes(shards[0].read_bytes()), "listed and not"),
        (lambda shards: change(shards[0], odd=np.ones(1)), "1 there and not listed"),
        (lambda shards: index_of(shards).write_text("{}"), "no index of a checkpoint"),
        (lambda shards: index_of(shards).write_text(BESIDE), "folders in"),
    ):
        source = write_theirs("wan", tmp_path / "theirs", limit=20_000)
        shards = sorted(source.glob("*.safetensors"))
        assert len(shards) > 2
        spoil(shards)
        assert call("import", "--kind", "wan", source, tmp_path / "ours") == 2
        assert re.search(said, capsys.readouterr().err)
        shutil.rmtree(source)
    assert not list(tmp_path.iterdir())


def test_adapters_that_do_not_fit(tmp_path, capsys):
    source = write_adapter("kinema4d", tmp_path / "theirs")
    wan = tmp_path / "wan"
    imported("wan", write_theirs("wan", tmp_path / "their_wan"), wan)
    pairs = source / PAIRS
    whole = load_file(pairs)
    name = "transformer.blocks.0.attn2.to_v.lora_"
    wide = {k: np.repeat(x, 2, 0) if "lora_B" in k else x for k, x in whole.items()}
    other_rank = {
        k: np.ones((7, 24) if "lora_A" in k else (24, 7), "f4") if "to_v" in k else x
        for k, x in whole.items()
    }
    for tensors, said in (
        ({k: x for k, x in whole.items() if not k.startswith(name)}, "2 tensors missing"),
        (whole | {f"{name}alpha": np.ones(1)}, f"1 unknown .{name}alpha"),
        (other_rank, "has rank 3, .*to_?v?.* rank 7|rank 7"),
        (wide, "stands on a matrix of 24 x 48, the base has 24 x 24"),
        ({k: x for k, x in whole.items() if ".1." not in k}, "of 1 layers, base of 2"),
        ({"a": np.ones(1)}, "no pair for blocks.0"),
        ({k: x.astype("i1") for k, x in whole.items()}, "is int8, need float32"),
        ({k: x[0] for k, x in whole.items()}, "is no matrix"),
    ):
        save_file(tensors, pairs)
        to = tmp_path / "ours"
        assert call("import", "--kind", "kinema4d", "--base", wan, source, to) == 2
        error = capsys.readouterr().err
        assert re.search(said, error) and error.count("\n") == 1, error
        assert not to.exists()
    save_file(whole, pairs)
    for name, shape, said in (
        ("arm_ln.weight", (7,), r"robot_tokens/norm/scale is \[7\], need \[6\]"),
        ("learnable_domain_embeddings", (3, 24), r"domain is \[3, 24\], need \[2, 24\]"),
        ("arm_patch_proj.weight", (20, 6), r"out/kernel is \[6, 20\], need \[6, 24\]"),
        ("arm_cond_proj.other", (1,), "1 unknown .arm_cond_proj.other"),
    ):
        before = load_file(source / ADDED)
        change(source / ADDED, **{name.replace(".", "__"): np.ones(shape, "f4")})
        assert call("import", "--kind", "kinema4d", source, tmp_path / "ours") == 2
        assert re.search(said, capsys.readouterr().err)
        save_file(before, source / ADDED)
    assert call("export", "--kind", "vae", wan, tmp_path / "x") == 2
    assert "holds wan, need vae" in capsys.readouterr().err
    assert call("import", "--kind", "wan", tmp_path / "none", tmp_path / "x") == 2
    assert call("import", "--kind", "wan", source, wan) == 2
    assert "exists already" in capsys.readouterr().err


# ------ what bites


class Evil:
    def __reduce__(self):
        return os.system, ("touch bitten",)


PICKLES = {
    "reduce": pickle.dumps({"a": Evil()}, 2),
    "frames": pickle.dumps(Evil(), 4),
    "protocol 0": pickle.dumps(Evil(), 0),
    "global": b"cos\nsystem\n(S'touch bitten'\ntR.",
    "instance": b"(S'touch bitten'\nios\nsystem\n.",
    "object": b"(cos\nsystem\nX\x0c\0\0\0touch bittenoR.",
    "new object": b"\x80\x02cbuiltins\neval\nX\x01\0\0\01\x85\x81.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch bitten\x85R.",
    "extension": b"\x80\x02\x82\x01)R.",
    "loader": b"\x80\x02ctorch.storage\n_load_from_bytes\nC\x01a\x85R.",
    "build": b"\x80\x02]}X\x01\0\0\0aK\x01sb.",
    "called dict": b"\x80\x02ccollections\nOrderedDict\n]\x85R.",
    "called storage": b"\x80\x02ctorch\nFloatStorage\nK\x05\x85R.",
    "bare list": pickle.dumps([1, 2], 2),
    "numbers": pickle.dumps({"a": 1}, 2),
    "no end": b"\x80\x02}",
    "empty": b"",
    "garbage": b"\xff\x00garbage",
    "nothing there": b"\x80\x02R.",
}


@pytest.mark.parametrize("case", PICKLES)
def test_nothing_in_an_archive_is_run(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", PICKLES[case])
        archive.writestr("evil/data/0", b"\0" * 16)
    with pytest.raises(InputError) as caught:
        open_torch(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not (tmp_path / "bitten").exists()


def test_damaged_archives(tmp_path):
    """Every tensor lies inside its numbers, every number in the file."""
    path = tmp_path / "weights.pt"
    tensors = {"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones((), "i8")}
    write_torch(path, {name: held(x) for name, x in tensors.items()})
    assert same(open_torch(path), tensors)
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            open_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", "text")
    for old, new in ((b"J\x06\0\0\0", b"J\x07\0\0\0"), (b"J\x03\0\0\0", b"J\x0f\0\0\0")):
        path.write_bytes(whole)
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        assert old in entries["archive/data.pkl"]
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data.replace(old, new))
        with pytest.raises(InputError, match=r"bytes, need|lies outside"):
            open_torch(path)


# ------ memory


LARGE = """
import resource, sys
import jax, numpy as np
from pathlib import Path
sys.path.insert(0, "tests")
import test_convert as t
from w4d_jax.nets.checkpoint import Checkpoint, placed, read_checkpoint
from w4d_jax.nets.dit import DiTConfig
from w4d_jax.nets.lazy import Lazy

folder = Path(sys.argv[1])
large = DiTConfig(width=128, heads=2, layers=16, ffn=8192, frequencies=16, text_dim=10)


def zeros(shape, dtype="f4"):
    return Lazy(shape, np.dtype(dtype), lambda i: np.zeros(shape, dtype)[i], len(shape) > 2)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write(config, name):
    leaves = {p: zeros(s) for p, s in t.MODELS["wan"].shapes(config).items()}
    (folder / name).mkdir()
    t.export_kind("wan", Checkpoint("wan", config, leaves), folder / name, 30_000_000)


write(t.SMALL, "small")
write(large, "large")
t.call("import", "--kind", "wan", folder / "small", folder / "small_ours")
before = peak()
t.call("import", "--kind", "wan", folder / "large", folder / "ours")
t.call("export", "--kind", "wan", folder / "ours", folder / "back")
print("grown", peak() - before)

found = read_checkpoint(folder / "ours", t.CONFIGS)
mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
read = []


def recorded(leaf):
    def part(index):
        x = leaf.read(index)
        read.append(x.nbytes / leaf.nbytes)
        return x

    return Lazy(leaf.shape, leaf.dtype, part)


name = "dit/blocks/ffn_in/kernel"
spread = jax.NamedSharding(mesh, jax.P(None, None, "fsdp"))
whole = jax.NamedSharding(mesh, jax.P())
abstract = {
    p: jax.ShapeDtypeStruct(x.shape, "bfloat16", sharding=spread if p == name else whole)
    for p, x in found.leaves.items()
}
leaves = dict(found.leaves) | {name: recorded(found.leaves[name])}
arrays = placed(leaves, abstract, folder)
assert arrays[name].sharding == spread and arrays[name].dtype == "bfloat16"
print("parts", sorted(read))
"""


def test_memory_stays_near_one_tensor(tmp_path):
    """168 MB of weights, stacks of 67 MB, tensors of 4 MB; and of a leaf that four devices
    share, each reads its quarter."""
    flags = "--xla_force_host_platform_device_count=4"
    run = subprocess.run(
        [sys.executable, "-c", LARGE, tmp_path],
        capture_output=True, text=True, check=False, cwd=REPO,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    grown = float(re.search("grown (.*)", run.stdout)[1])
    assert grown < 40, run.stdout
    assert "parts [0.25, 0.25, 0.25, 0.25]" in run.stdout
