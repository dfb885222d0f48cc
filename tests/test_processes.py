"""Many processes train as one; whatever ends one of them, nothing is lost."""

import contextlib
import re
import signal
import time
from pathlib import Path

import kills
import pytest
import toy
from toy import free_port

from w4d_jax.train.cluster import ClusterConfig, check, share, told
from w4d_jax.train.feed import within
from w4d_jax.types import InputError


@pytest.fixture(scope="module")
def starter(tmp_path_factory):
    # A folder of its own: a process that is killed may leave half a program there.
    programs = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}
    with contextlib.closing(toy.Starter(programs)) as starter:
        yield starter


@pytest.fixture(scope="module")
def whole(starter, tmp_path_factory):
    """Eight steps of one process with one device."""
    return starter.train(tmp_path_factory.mktemp("whole") / "run")


def ends(runs) -> list[int]:
    return [run.status() for run in runs]


def close(one: Path, other: Path, rel: float = 1e-5) -> None:
    """Equal but for the order of sums over devices."""
    ours, theirs = kills.metrics(one), kills.metrics(other)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=rel)


def until_step(workdir: Path, step: int, runs) -> None:
    late = time.monotonic() + 240
    while kills.steps(workdir) < step:
        assert time.monotonic() < late, "\n".join(run.said() for run in runs)
        time.sleep(0.02)


# Many processes ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4])
def test_many_processes_learn_what_one_does(starter, whole, tmp_path, count):
    """And checkpoint together: one process goes on from what they have saved."""
    workdir = tmp_path / "run"
    cut = {"mesh__fsdp": 2, "mesh__data": count // 2}
    runs = starter.together(workdir, count, free_port(), steps=4, **cut)
    assert ends(runs) == [0] * count, [run.said() for run in runs]
    # Only the first writes what people read.
    assert ["checkpoints:" in run.said() for run in runs] == [True] + [False] * (count - 1)
    starter.train(workdir)
    close(workdir, whole)


def test_what_is_damaged_for_one_is_damaged_for_all(starter, whole, tmp_path):
    """The half of the newest checkpoint that the second process reads."""
    workdir, cut = tmp_path / "run", {"mesh__fsdp": 2, "mesh__data": 1}
    runs = starter.together(workdir, 2, free_port(), steps=4, **cut)
    assert ends(runs) == [0, 0], [run.said() for run in runs]
    (part,) = (workdir / "checkpoints/4/state/ocdbt.process_1/d").iterdir()
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    runs = starter.together(workdir, 2, free_port(), **cut)
    assert ends(runs) == [0, 0], [run.said() for run in runs]
    damaged = ["checkpoints/4 cannot be read" in run.said() for run in runs]
    assert damaged == [False, True]
    close(workdir, whole)


def test_two_go_on_from_one_and_a_kill_ends_both(starter, whole, tmp_path):
    workdir = starter.train(tmp_path / "run", steps=2)
    slow = {"data__pause": 0.2, "steps": 1000, "cluster__silence": 10}
    runs = starter.together(workdir, 2, free_port(), **slow)
    until_step(workdir, 4, runs)
    runs[1].kill()
    start = time.monotonic()
    assert ends(reversed(runs))[1] != 0
    assert time.monotonic() - start < 60
    assert re.search("another process is lost|another task died", runs[0].said())
    runs = starter.together(workdir, 2, free_port())
    assert ends(runs) == [0, 0], [run.said() for run in runs]
    close(workdir, whole)


def test_sigterm_to_one_stops_all_after_the_same_step(starter, tmp_path):
    workdir = tmp_path / "run"
    slow = {"data__pause": 0.1, "steps": 1000, "checkpoint_every": 1000}
    runs = starter.together(workdir, 2, free_port(), **slow)
    until_step(workdir, 1, runs)
    runs[1].kill(signal.SIGTERM)
    assert ends(runs) == [0, 0], [run.said() for run in runs]
    (saved,) = kills.names(workdir)
    assert f"stopped at step {saved}; the same command" in runs[0].said()


def test_nobody_to_join(starter, tmp_path):
    word = {"cluster__coordinator": f"127.0.0.1:{free_port()}", "cluster__processes": 2}
    run = starter.start(tmp_path / "run", cluster__process=1, cluster__start=1, **word)
    assert "process 1 of 2 has not joined in 1 s (" in one_line(run)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, ("", 0, -1)),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "a:1",
                "JAX_NUM_PROCESSES": "4",
                "JAX_PROCESS_ID": "2",
            },
            ("a:1", 4, 2),
        ),
        ({"SLURM_STEP_NUM_TASKS": "8"}, ("auto", 0, -1)),
        ({"SLURM_STEP_NUM_TASKS": "1"}, ("", 0, -1)),
        ({"TPU_WORKER_HOSTNAMES": "t0,t1"}, ("auto", 0, -1)),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, ("", 0, -1)),
    ],
)
def test_what_the_environment_tells(environment, found):
    made = told(ClusterConfig(), environment)
    assert (made.coordinator, made.processes, made.process) == found
    given = ClusterConfig("b:2", 2, 0)
    assert told(given, environment) == given


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        (("here", 2, 0), "cluster.coordinator=here: need HOST:PORT"),
        (("a:1", 2, 2), r"cluster\.process=2 of cluster\.processes=2: need 0 <= process"),
        (("a:1", 0, -1), r"cluster\.process=-1 of cluster\.processes=0"),
    ],
)
def test_clusters_that_cannot_be(cluster, said):
    with pytest.raises(InputError, match=said):
        check(ClusterConfig(*cluster))


def test_a_share_needs_no_other_process(monkeypatch):
    """What tools/encode.py divides its clips by."""
    assert share(ClusterConfig()) == (0, 1)
    assert share(ClusterConfig("a:1", 4, 3)) == (3, 4)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "a:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    assert share(ClusterConfig()) == (1, 2)


def test_half_told_is_an_error():
    with pytest.raises(InputError, match="need JAX_NUM_PROCESSES and JAX_PROCESS_ID"):
        told(ClusterConfig(), {"JAX_COORDINATOR_ADDRESS": "a:1"})


# Meshes --------------------------------------------------------------------------------


def test_a_checkpoint_goes_on_on_any_mesh(starter, whole, tmp_path):
    """Of eight devices, then four, then two by four."""
    workdir = tmp_path / "run"
    for count, steps, mesh in (
        (8, 2, {"mesh__fsdp": 4, "mesh__seq": 2, "mesh__data": 1}),
        (4, 4, {"mesh__data": 4}),
        (8, 8, {"mesh__data": 2, "mesh__tensor": 4}),
    ):
        starter.train(workdir, environment=toy.devices(count), steps=steps, **mesh)
    close(workdir, whole)


# Nothing lost --------------------------------------------------------------------------


def test_kills_at_random_moments(starter, tmp_path):
    """Twenty of them: python tests/kills.py"""
    lines = list(kills.killed_and_whole(starter, tmp_path, 2))
    assert kills.differences(tmp_path / "whole", tmp_path / "killed") == [], lines


def one_line(run, status: int = 2) -> str:
    """The error that a run ended with."""
    assert run.status() == status, run.said()
    assert "Traceback" not in run.said()
    (line,) = re.findall("^error: .*$", run.said(), re.M)
    return line


def test_no_room_for_a_checkpoint(starter, whole, tmp_path):
    """The limit on files stands for a disk that is full; made room, the run goes on."""
    workdir = starter.train(tmp_path / "run", steps=2)
    run = starter.start(workdir, files=30_000)
    said = one_line(run)
    assert re.search(r"checkpoint .*/4: not written \(.*[Ff]ile too large.*\); mend", said)
    starter.train(workdir)
    assert kills.differences(workdir, whole) == []


def test_no_room_for_the_rest(starter, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "parameters.txt").symlink_to("/dev/full")
    said = one_line(starter.start(workdir))
    assert "run: cannot write to it" in said and "No space left on device" in said


def test_where_nothing_can_be_written(starter, tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    assert "run: cannot write to it" in one_line(starter.start(tmp_path / "run"))


def test_a_clip_that_is_no_number(starter, tmp_path):
    run = starter.start(tmp_path / "run", data__nan=3)
    said = one_line(run)
    found = re.search(r"step (\d+): loss is nan, .*clips (.*); its .* as step (\d+)", said)
    assert found and "clip 3" in found[2].split(", ")
    assert found[3] in kills.names(tmp_path / "run")


def test_a_clip_that_never_comes(starter, tmp_path):
    said = one_line(starter.start(tmp_path / "run", data__hang=3, patience=1.0))
    assert "data: no batch came within 1.0 s" in said


def test_patience():
    assert within(10, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(10, lambda: 1 / 0)
    with pytest.raises(TimeoutError):
        within(0.01, lambda: time.sleep(0.2))
