"""The status of real runs: while they run, when they are done, and when something has failed, died or been stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from adamqlr.stages.status import read_status
from adamqlr.status.states import SILENCE_SECONDS, State
from adamqlr.status.summary import Status

ROOT = Path(__file__).resolve().parents[2]

OWN = """
import os, signal, time
import torch

class Broken(torch.optim.SGD):
    def step(self, closure=None):
        raise ValueError("this optimizer is broken")

class Deadly(torch.optim.SGD):
    def step(self, closure=None):
        os.kill(os.getpid(), signal.SIGKILL)

class Slow(torch.optim.SGD):
    def step(self, closure=None):
        time.sleep(0.5)
        return super().step(closure)
"""
NAMES = ("Broken", "Deadly", "Slow")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where Snakemake is started, with a study of optimizers that misbehave."""
    (tmp_path / "own.py").write_text(OWN)
    own = [{name: {"optimizer": f"own.py:{name}", "options": {"lr": 0.1}, "batch_size": 100}} for name in NAMES]
    settings = {
        "name": "small",
        "datasets": {"digits": {"epochs": 8}},
        "optimizers": ["adam_untuned", *own],
        "ablations": {},
        "training": {"seeds": 1, "pack": "never"},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return tmp_path


def start(folder: Path, *optimizers: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start Snakemake for some optimizers' cubes, in a process group of its own."""
    cubes = [f"results/small/cubes/epochs/digits/{optimizer}.nc" for optimizer in optimizers]
    command = [sys.executable, "-m", "snakemake", *cubes, "--snakefile", str(ROOT / "Snakefile"), "--cores", "1"]
    command += ["--configfile", "small.yaml", *options]
    return subprocess.Popen(
        command, cwd=folder, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    return output


def states(status: Status) -> dict[str, State]:
    return {
        f"{seen.job.rule} {seen.job.name.split('/')[2]}": seen.state
        for seen in status.jobs
        if "/digits/" in seen.job.name
    }


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.2)


def contents(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
def test_a_study_is_followed_from_its_start_to_its_end(folder: Path) -> None:
    results, seen = folder / "results" / "small", []
    process = start(folder, "adam_untuned")
    wait_for((results / "config.yaml").exists, process)
    while process.poll() is None:
        seen.append(read_status(results))
        time.sleep(0.1)
    assert process.returncode == 0, finish(process)
    finish(process)
    assert all(status.counts[State.RUNNING] <= 1 for status in seen), "more than one core has"
    assert not any(status.counts[State.FAILED] or status.counts[State.UNKNOWN] for status in seen)
    done = [status.counts[State.DONE] for status in seen]
    assert done == sorted(done)
    assert State.RUNNING in [states(status)["train adam_untuned"] for status in seen]
    assert states(seen[0])["aggregate adam_untuned"] is State.WAITING
    assert any(status.locked_since is not None for status in seen)
    before = contents(folder)
    end = read_status(results)
    assert contents(folder) == before
    assert (end.counts[State.DONE], end.counts[State.RUNNING], end.locked_since) == (2, 0, None)
    assert end.hours["cpu"] > 0
    assert end.hours["unknown"] == 0


@pytest.mark.slow
def test_what_fails_or_dies_has_failed_and_what_needs_it_waits(folder: Path) -> None:
    process = start(folder, "Broken", "Deadly", "adam_untuned", options=("--keep-going",))
    finish(process)
    assert process.returncode != 0
    status = read_status(folder / "results" / "small")
    assert states(status) == {
        "train adam_untuned": State.DONE,
        "train Broken": State.FAILED,
        "train Deadly": State.FAILED,
        "train Slow": State.WAITING,
        "aggregate adam_untuned": State.DONE,
        "aggregate Broken": State.WAITING,
        "aggregate Deadly": State.WAITING,
        "aggregate Slow": State.WAITING,
    }
    why = {seen.job.name.split("/")[2]: seen.why for seen in status.jobs if seen.state is State.FAILED}
    assert why == {"Broken": "ValueError: this optimizer is broken", "Deadly": "its log names no error"}


def slow_job_runs(folder: Path) -> Callable[[], bool]:
    log = folder / "results/small/logs/train/epochs/digits/Slow/seeds_0-0.log"
    return lambda: log.exists() and "computes on" in log.read_text()


@pytest.mark.slow
def test_what_was_killed_is_not_running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(folder, "Slow")
    wait_for(slow_job_runs(folder), process)
    results = folder / "results" / "small"
    assert states(read_status(results))["train Slow"] is State.RUNNING
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    later = time.time() + SILENCE_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    status = read_status(results)
    assert states(status)["train Slow"] is State.UNKNOWN
    assert status.counts[State.RUNNING] == 0
    assert status.locked_since is not None, "nobody has taken the lock away"


@pytest.mark.slow
def test_what_was_stopped_waits(folder: Path) -> None:
    process = start(folder, "Slow")
    wait_for(slow_job_runs(folder), process)
    os.killpg(process.pid, signal.SIGINT)
    finish(process)
    status = read_status(folder / "results" / "small")
    assert states(status)["train Slow"] is State.WAITING
    assert status.locked_since is None
