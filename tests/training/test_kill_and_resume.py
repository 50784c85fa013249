"""Training and tuning processes that are killed or asked to stop, and started again."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from adamqlr.jobs.interrupts import Interrupted
from adamqlr.problems.problem import Problem, load_problem
from adamqlr.results.runs import read_runs
from adamqlr.stages.train import train
from adamqlr.stages.tune import tune
from adamqlr.study.case import Case
from adamqlr.study.config import load_config

ConfigFile = Callable[..., Path]
# Shards that run at once prune by what the others have found by then: only the configurations are the same.
SHARED = ("value", "state", "seconds")


@pytest.fixture
def config(config_file: ConfigFile) -> Path:
    """Long enough to be interrupted, with a checkpoint every few steps."""
    return config_file(
        datasets={"diabetes": {"epochs": 150}, "digits": {"epochs": 40}},
        optimizers=["adamqlr", "kfac"],
        training={"seeds": 3, "seeds_per_job": 3, "checkpoint_seconds": 0.01},
        tuning={"trials": 6, "unit": "epochs", "first_rung": 10, "limit": 160, "reduction_factor": 2, "shards": 1},
    )


def command(stage: str, config: Path, output: Path, optimizer: str = "adamqlr", processes: int = 1) -> list[str]:
    setting = {"adamqlr": "optimizer.lr_clipping=0.1", "kfac": "optimizer.inverse_period=3"}[optimizer]
    count = ["--processes", str(processes)]
    options = {
        "train": [*count, "--seeds", "0-1", "--set", "dataset.epochs=1500", "--set", setting],
        "tune": [*count, "--set", "dataset.epochs=6000", "--set", "tuning.limit=6000"],
        "tune packed": [
            *("--set", "training.pack=always", "--set", "dataset.fixed_batch_size=true"),
            *("--set", "dataset.epochs=1000", "--set", "tuning.limit=1000"),
        ],
    }
    pair = ["--dataset", "diabetes", "--optimizer", optimizer, *options[stage]]
    program = [sys.executable, "-c", "from adamqlr.cli import main; main()"]
    return [*program, stage.split()[0], "--config", str(config), *pair, "--output", str(output)]


def load_and_stop(*arguments: Any) -> Problem:
    """Load data while the process is asked to stop."""
    os.kill(os.getpid(), signal.SIGTERM)
    return load_problem(*arguments)


def run(arguments: list[str]) -> None:
    subprocess.run(arguments, check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Give the output of a command that nobody disturbs, which several tests compare with."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def output_of(stage: str, config: Path, **options: Any) -> Path:
        output = folder / "_".join([stage, *map(str, options.values())]) / "out.nc"
        if not output.exists():
            run(command(stage, config, output, **options))
        return output

    return output_of


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> bool:
    while process.poll() is None:
        if path.exists():
            return True
        time.sleep(0.002)
    return False


def written_at(path: Path) -> int | None:
    """Return when a file was written; None where it is not there, or not there any more."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def assert_same_results(interrupted: Path, expected: Path, timed: tuple[str, ...]) -> None:
    """Compare everything but the seconds that it took."""
    first, second = (xr.load_dataset(path).drop_vars(timed) for path in (interrupted, expected))
    for name, variable in second.variables.items():
        np.testing.assert_array_equal(first[name].values, variable.values, err_msg=str(name))


@pytest.mark.parametrize(
    ("stage", "optimizer", "timed"),
    [
        ("train", "adamqlr", ("time", "evaluation_seconds")),
        ("train", "kfac", ("time", "evaluation_seconds")),
        ("tune", "adamqlr", ("seconds",)),
        ("tune packed", "adamqlr", ("seconds",)),
    ],
)
def test_killed_at_random_moments_and_rerun(
    stage: str,
    optimizer: str,
    timed: tuple[str, ...],
    config: Path,
    tmp_path: Path,
    undisturbed: Callable[..., Path],
) -> None:
    expected, output = undisturbed(stage, config, optimizer=optimizer), tmp_path / "killed" / "out.nc"
    checkpoint = output.with_name(f".{output.name}.checkpoint")
    kills = 0
    for attempt in range(3):
        process = subprocess.Popen(command(stage, config, output, optimizer), stderr=subprocess.DEVNULL)
        before = written_at(checkpoint)
        while process.poll() is None and written_at(checkpoint) == before:
            time.sleep(0.002)
        time.sleep(random.Random(time.time_ns() + attempt).uniform(0, 0.5))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills > 0, "the job was over before it could be killed"
    run(command(stage, config, output, optimizer))
    assert_same_results(output, expected, timed)
    assert not checkpoint.exists()


@pytest.mark.parametrize(("stage", "timed"), [("train", ("time", "evaluation_seconds")), ("tune", ("seconds",))])
@pytest.mark.parametrize("signum", [signal.SIGUSR2, signal.SIGTERM])
def test_asked_to_stop_writes_a_checkpoint_and_goes_on(
    stage: str,
    timed: tuple[str, ...],
    signum: signal.Signals,
    config: Path,
    tmp_path: Path,
    undisturbed: Callable[..., Path],
) -> None:
    expected, output = undisturbed(stage, config, optimizer="adamqlr"), tmp_path / "stopped" / "out.nc"
    checkpoint = output.with_name(f".{output.name}.checkpoint")
    process = subprocess.Popen(command(stage, config, output), stderr=subprocess.PIPE)
    assert wait_for(checkpoint, process)
    process.send_signal(signum)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, log.decode()
    assert f"stopped by {signum.name}; the checkpoint is written" in log.decode()
    assert not output.exists()
    run(command(stage, config, output))
    assert_same_results(output, expected, timed)


@pytest.mark.parametrize("stage", ["train", "tune"])
def test_asked_to_stop_while_data_is_loaded_stops_by_the_first_step(
    stage: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"adamqlr.stages.{stage}.load_problem", load_and_stop)
    output = tmp_path / "loading" / "out.nc"
    case = Case(load_config(config), "epochs", "diabetes", "adamqlr")
    work = {
        "train": partial(train, case, [0], {"lr_clipping": 0.1}, output, 1),
        "tune": partial(tune, case, (0, 1), output, 1),
    }
    with pytest.raises(Interrupted, match="stopped by SIGTERM; the checkpoint is written"):
        work[stage]()
    assert output.with_name(".out.nc.checkpoint").exists()
    assert not output.exists()


def test_a_job_that_goes_on_elsewhere_names_both_devices(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "moved.nc"
    case = Case(load_config(config), "epochs", "diabetes", "adamqlr")
    work = partial(train, case, [0], {"lr_clipping": 0.1}, output, 1)
    with monkeypatch.context() as patched:
        patched.setattr("adamqlr.stages.train.load_problem", load_and_stop)
        patched.setattr("adamqlr.training.seeds.device_name", lambda device: "A100")
        with pytest.raises(Interrupted):
            work()
    monkeypatch.setattr("adamqlr.training.seeds.device_name", lambda device: "H100")
    work()
    assert read_runs(output).attrs["device"] == "A100, H100"


@pytest.mark.parametrize(
    ("stage", "signum", "different"),
    [
        ("train", signal.SIGUSR2, ("time", "evaluation_seconds")),
        ("train", signal.SIGKILL, ("time", "evaluation_seconds")),
        ("tune", signal.SIGTERM, SHARED),
    ],
)
def test_processes_that_share_a_device_stop_and_go_on(
    stage: str,
    signum: signal.Signals,
    different: tuple[str, ...],
    config: Path,
    tmp_path: Path,
    undisturbed: Callable[..., Path],
) -> None:
    expected, output = undisturbed(stage, config, processes=2), tmp_path / "stopped" / "out.nc"
    process = subprocess.Popen(command(stage, config, output, processes=2), stderr=subprocess.PIPE)
    while not list(output.parent.glob(f".{output.name}.?-of-2.checkpoint")):
        assert process.poll() is None, "the job was over before it could be stopped"
        time.sleep(0.002)
    process.send_signal(signum)
    # The log's end is the end of all processes that write to it: none may outlive the one that started it.
    _, log = process.communicate(timeout=60)
    assert process.returncode == (-9 if signum == signal.SIGKILL else 128 + signum), log.decode()
    assert not output.exists()
    run(command(stage, config, output, processes=2))
    assert_same_results(output, expected, different)
    assert not list(output.parent.glob(".*checkpoint"))
