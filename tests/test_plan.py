"""The planner: reading programs, choosing plans, and one real compilation for TPUs."""

import json
import os
import subprocess
import sys

import pytest
from runs import REPO

from w4d_jax.nets.dit import DiTConfig, wan_14b_i2v
from w4d_jax.nets.flops import transformer
from w4d_jax.nets.remat import REMAT
from w4d_jax.plan.chips import CHIPS, devices_of
from w4d_jax.plan.hlo import traffic
from w4d_jax.plan.model import Model
from w4d_jax.plan.report import markdown
from w4d_jax.plan.search import Size, executed, memory, plans
from w4d_jax.train.config import load_config
from w4d_jax.types import InputError

PROGRAM = """
HloModule jit_f, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%a, %b)
}

%slice_of_layers (p0: f32[10,4,8], p1: s32[]) -> f32[1,4,8] {
  %p0 = f32[10,4,8]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %cut = f32[1,4,8]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero)
}

%kept_layer (p0: f32[10,4,8], p1: f32[1,4,8], p2: s32[]) -> f32[10,4,8] {
  %p0 = f32[10,4,8]{2,1,0} parameter(0)
  %p1 = f32[1,4,8]{2,1,0:T(8,128)S(1)} parameter(1)
  %p2 = s32[]{:S(2)} parameter(2)
  %zero = s32[] constant(0)
  ROOT %put = f32[10,4,8]{2,1,0} dynamic-update-slice(%p0, %p1, %p2, %zero, %zero)
}

%body (state: (s32[], f32[10,4,8])) -> (s32[], f32[10,4,8]) {
  %state = (s32[], f32[10,4,8]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %layers = f32[10,4,8]{2,1,0} get-tuple-element(%state), index=1
  %layer = f32[1,4,8]{2,1,0:T(8,128)S(1)} fusion(%layers, %i), calls=%slice_of_layers
  %whole = f32[4,4,8]{2,1,0} all-gather(%layer), replica_groups={{0,1,2,3},{4,5,6,7}}
  %traded = bf16[16]{0} all-to-all(%whole), replica_groups=mesh['x'=2,'y'=4] {'x','y'}
  %kept = f32[10,4,8]{2,1,0} fusion(%layers, %layer, %i), calls=%kept_layer
  ROOT %next = (s32[], /*index=1*/f32[10,4,8]{2,1,0}) tuple(%i, %kept)
}

%condition (state: (s32[], f32[10,4,8])) -> pred[] {
  %bound = s32[] constant(10)
  %state = (s32[], f32[10,4,8]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

ENTRY %main (x: f32[10,4,8]) -> f32[100] {
  %x = f32[10,4,8]{2,1,0} parameter(0)
  %start = s32[] constant(0)
  %state = (s32[], f32[10,4,8]{2,1,0}) tuple(%start, %x)
  %loop = (s32[], f32[10,4,8]{2,1,0}) while(%state), condition=%condition, body=%body
  %y = f32[100]{0} constant(0)
  %there = (f32[100]{0}, f32[100]{0}, u32[]) collective-permute-start(%y), channel_id=1
  %arrived = f32[100]{0} collective-permute-done(%there)
  ROOT %total = f32[100]{0} all-reduce(%arrived), replica_groups=[2,4]<=[8], to_apply=%sum
}
"""


def test_a_program_is_read():
    made = traffic(PROGRAM)
    assert made.count == {
        "all-gather": 10,
        "all-to-all": 10,
        "collective-permute": 1,
        "all-reduce": 1,
    }
    assert made.sent == {
        "all-gather": 10 * (4 * 4 * 8 * 4) * 3 / 4,
        "all-to-all": 10 * 16 * 2 * 7 / 8,
        "collective-permute": 400,
        "all-reduce": 400 * 2 * 3 / 4,
    }
    layer, whole = 4 * 8 * 4, 4 * 4 * 8 * 4
    # In a turn a layer is cut out of the stack into VMEM, gathered from there, traded, and
    # put back into the stack.
    turn = layer + whole + (whole + 32) + layer
    assert made.memory == 10 * turn + 804 + 800


def test_a_loop_without_a_bound_is_no_loop_of_ours():
    text = PROGRAM.replace("%bound = s32[] constant(10)", "%bound = s32[] parameter(1)")
    with pytest.raises(ValueError, match="loop loop: its condition has bounds"):
        traffic(text)


def wan(tokens: int = 35_100, rank: int = 0) -> Model:
    """Wan2.1-I2V-14B on encoded clips."""
    dit = DiTConfig(**wan_14b_i2v())
    forward = transformer(dit, tokens, 312, 257, rank)
    return Model(dit, tokens, forward, forward.step, 0.0, 0.0, tuple(REMAT), dict, dict)


FULL = Size(state=262e9, gradient=65e9, frozen=0, coders=0.3e9, blocks=33e9)


def test_plans_take_all_devices_and_fit():
    model, chip = wan(), CHIPS["v5e"]
    found = plans(32, model, FULL, chip, 64)
    assert len(found) > 5
    for plan in found:
        sizes = plan.mesh
        assert sizes["data"] * sizes["fsdp"] * sizes["seq"] * sizes["tensor"] == 64
        assert 32 % (sizes["fsdp"] * plan.accumulate) == 0
        assert 40 % (sizes["seq"] * sizes["tensor"]) == 0
        assert memory(plan, 32, model, FULL) < chip.hbm
    assert plans(32, model, FULL, chip, 4) == []
    # Larger chips need not do anything twice or in parts.
    best = plans(32, model, FULL, CHIPS["v5p"], 64)[0]
    assert best.accumulate == 1 and best.remat == "attention"


def test_a_batch_that_does_not_go_round():
    """7 examples and 40 heads on 64 chips: 8 devices at most have a head each to spare."""
    with pytest.raises(InputError, match=r"batch=7 and heads=40 .* 64 .* multiple of 8,"):
        plans(7, wan(), FULL, CHIPS["v5e"], 64)
    assert plans(8, wan(), FULL, CHIPS["v5e"], 64)


def test_what_is_computed_again():
    full, pairs = wan(), wan(rank=64)
    total = full.forward.total
    assert executed(full, "none") == full.step == 3 * total
    assert executed(full, "full") == 4 * total
    assert executed(full, "attention") == 3 * total + full.forward.linear
    assert pairs.step < executed(pairs, "attention") < executed(pairs, "full")


@pytest.mark.parametrize("topology", ["v5p:3x3x3", "v9:2x2", "v5e", ""])
def test_an_unknown_topology(topology):
    with pytest.raises(
        InputError, match="need local or NAME:SHAPE of v5e: 1x1 2x2"
    ) as said:
        devices_of(topology)
    assert "\n" not in str(said.value)


def test_libtpu_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(InputError, match=r"libtpu is not installed.* --extra plan"):
        devices_of("v5p:2x2x1")


def test_here_is_a_topology():
    devices, chip = devices_of("local")
    assert devices and chip.kind == devices[0].device_kind and chip.hbm is None


def test_a_plan_that_does_not_fit_is_a_row():
    report = {"config": "c", "topology": "v5e:1x1", "batch": 1, "verdict": "does not fit"}
    *_, row = markdown([report | {"tried": []}])
    assert row.startswith("| c | v5e:1x1 | 1 | does not fit |") and row.count("|") == 13


CONFIG = """
from configs.kinema4d import tiny

def get_config():
    config = tiny()
    config.batch = 4
    config.data.update(frames=5, height=16, width=16)
    config.model.dit.update(width=32, heads=2, layers=1, ffn=64)
    config.model.update(robot_width=16, robot_patch=2)
    config.mesh.update(data=1, fsdp=2, seq=2)
    return config
"""


def test_a_step_compiles_for_a_tpu(tmp_path):
    """The whole command, for four chips of the kind that needs no more than two axes."""
    pytest.importorskip("libtpu", reason="the extra plan has it for Linux alone")
    config, out = tmp_path / "config.py", tmp_path / "plan.json"
    config.write_text(CONFIG)
    command = [sys.executable, REPO / "tools/plan.py", f"--config={config}"]
    command += ["--topology=v5e:2x2", "--as-given", "--no-draw", f"--out={out}"]
    # Compiled as a user's would be, and not as conftest.py says.
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    plain |= {"JAX_PLATFORMS": "cpu"}
    plain |= {"PYTHONPATH": f"{REPO}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "kinema4d-tiny on v5e:2x2, 4 x TPU v5 lite" in done.stdout
    assert "fits: --config.mesh.data=1 --config.mesh.fsdp=2" in done.stdout
    report = json.loads(out.read_text())
    head, line, row = markdown([report])
    assert head.count("|") == line.count("|") == row.count("|") == 13
    assert row.startswith("| kinema4d-tiny | v5e:2x2 | 4 | fsdp=2 seq=2, accumulate 1, ")
    step = report["step"]
    assert 0 < step["bytes"]["arguments"] < step["bytes"]["peak"] < step["bytes"]["there"]
    assert step["collectives"]["all-to-all"]["bytes"] > 0  # tokens for heads
    assert step["flops"]["executed"] > step["flops"]["formula"] > 0
    assert 0 < step["mfu"][1] <= step["mfu"][0] < 1
    advice = report["verdict"].replace("fits: ", "").split()
    changes = [word.removeprefix("--config.").split("=") for word in advice]
    assert load_config(str(config), changes).mesh.fsdp == 2  # a run takes it as it stands
