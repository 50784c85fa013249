"""Schedules, clocks, checkpoints, signals, hyperparameters."""

import errno
import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adamqlr.errors import UserError
from adamqlr.jobs.checkpoint import Checkpoint
from adamqlr.jobs.device import device_name, resolve_device, set_precision
from adamqlr.jobs.interrupts import stop_on_signals
from adamqlr.study.case import Case
from adamqlr.study.config import StudyConfig
from adamqlr.study.settings import PrecisionConfig
from adamqlr.training.clock import TrainingClock
from adamqlr.training.optimizers import check_hyperparameters
from adamqlr.training.schedule import RecordSchedule


@given(every=st.integers(1, 50), growth=st.floats(1.01, 3), start=st.integers(0, 5000))
def test_recorded_steps_do_not_depend_on_where_one_asks(every: int, growth: float, start: int) -> None:
    schedule = RecordSchedule(every, growth)
    steps = [schedule.next_after(0)]
    while steps[-1] <= start:
        steps.append(schedule.next_after(steps[-1]))
    assert schedule.next_after(start) == min(step for step in steps if step > start)
    assert steps[: min(every, len(steps))] == list(range(1, min(every, len(steps)) + 1))


def test_recorded_steps_grow_geometrically() -> None:
    schedule, steps = RecordSchedule(20, 1.05), [0]
    while steps[-1] < 100_000:
        steps.append(schedule.next_after(steps[-1]))
    assert len(steps) < 220


def test_the_clock_counts_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100
    monkeypatch.setattr("adamqlr.training.clock.time", SimpleNamespace(perf_counter=lambda: now))
    clock = TrainingClock(torch.device("cpu"), elapsed=5.0)
    with clock.running():
        now += 1
        with clock.paused():
            now += 20
        assert clock.read() == 6
        now += 2
        assert clock.read() == 8
    now += 40
    assert clock.read() == 8


def test_checkpoints_belong_to_one_configuration(tmp_path: Path) -> None:
    output = tmp_path / "runs.nc"
    checkpoint = Checkpoint(output, "one")
    assert checkpoint.load() is None
    checkpoint.save({"tensor": torch.ones(2), "step": 3, "list": [1.5, float("nan")]})
    loaded = checkpoint.load()
    assert loaded is not None
    assert loaded["step"] == 3
    assert torch.equal(loaded["tensor"], torch.ones(2))
    content = checkpoint.path.read_bytes()
    assert Checkpoint(output, "two").load() is None
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() == content
    checkpoint.save({"step": 4})
    for part in range(2):
        checkpoint.part(part, 2).save({"step": part})
    # What jobs left that were killed as they wrote.
    for name in ("..runs.nc.checkpoint.x1.tmp", "..runs.nc.0-of-2.checkpoint.x2.tmp", ".runs.nc.x3.tmp"):
        (tmp_path / name).touch()
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_checkpoints_of_outputs_whose_names_begin_alike_stay(tmp_path: Path) -> None:
    first, others = Checkpoint(tmp_path / "seed1", "one"), [tmp_path / name for name in ("seed10", "seed1.nc", "seed")]
    for other in others:
        checkpoint = Checkpoint(other, "one")
        for one in (checkpoint, checkpoint.part(0, 2)):
            one.save({"step": 5})
            (tmp_path / f".{one.path.name}.x1.tmp").touch()
            (tmp_path / f"{one.path.name}-unreadable").touch()
    before = set(tmp_path.iterdir())
    first.save({"step": 5})
    first.part(0, 2).save({"step": 5})
    first.remove()
    assert set(tmp_path.iterdir()) == before


def cut_off(content: bytes) -> bytes:
    return content[:100]


def with_a_flipped_byte(content: bytes) -> bytes:
    middle = content.index(b"step")
    return content[:middle] + b"\xff" + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [cut_off, with_a_flipped_byte, lambda content: b"", lambda content: bytes(len(content)), lambda content: b"text"],
)
def test_a_damaged_checkpoint_is_put_aside(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(tmp_path / "runs.nc", "one")
    for one in (checkpoint, checkpoint.part(1, 2)):
        one.save({"step": 3, "tensor": torch.ones(50)})
        damaged = damage(one.path.read_bytes())
        one.path.write_bytes(damaged)
        assert one.load() is None
        assert not one.path.exists()
        assert one.path.with_name(f"{one.path.name}-unreadable").read_bytes() == damaged
        assert f"{one.path}: not a readable checkpoint (" in caplog.text
        assert "starting over" in caplog.text
        assert all("\n" not in message for message in caplog.messages)
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_cannot_be_read_now_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    checkpoint = Checkpoint(tmp_path / "runs.nc", "one")
    checkpoint.save({"step": 3})
    with monkeypatch.context() as context:
        context.setattr(torch, "load", fail)
        with pytest.raises(UserError, match=r"runs\.nc\.checkpoint: cannot be read: Input/output error"):
            checkpoint.load()
    assert checkpoint.load() == {"step": 3}


@pytest.mark.parametrize("signum", [signal.SIGUSR2, signal.SIGTERM, signal.SIGINT])
def test_signals_are_noted_instead_of_deadly(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    with stop_on_signals() as stop:
        assert stop.signum is None
        os.kill(os.getpid(), signum)
        assert stop.signum == signum
    assert signal.getsignal(signum) == before


def test_a_second_interrupt_from_the_keyboard_does_not_wait() -> None:
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.signum == signal.SIGINT


def resolve(study: StudyConfig, optimizer: str, chosen: dict[str, object]) -> dict[str, object]:
    case = Case(study, "epochs", "digits", optimizer)
    hyperparameters = case.hyperparameters(chosen)
    check_hyperparameters(case, hyperparameters)
    return hyperparameters


def test_hyperparameters_are_merged_in_order(study: StudyConfig) -> None:
    merged = resolve(study, "adamqlr_untuned", {"damping": 0.5})
    assert merged == {"batch_size": 3200, "damping": 0.5, "damping_decrease": 0.5, "damping_increase": 2.0}
    assert resolve(study, "adam_untuned", {}) == {"batch_size": 200, "lr": 1e-3}


@pytest.mark.parametrize(
    ("optimizer", "chosen", "problem"),
    [
        ("adamqlr", {"dampin": 0.1}, "optimizer 'adamqlr': unknown hyperparameter 'dampin': known are betas"),
        ("sgd_full", {}, "optimizer 'sgd_full': no value for lr: give tuned ones with --best"),
        ("adam_untuned", {"batch_size": 2.5}, "batch_size must be a positive whole number, got 2.5"),
        ("adam_untuned", {"batch_size": 0}, "batch_size must be a positive whole number, got 0"),
    ],
)
def test_unusable_hyperparameters_are_named(
    study: StudyConfig, optimizer: str, chosen: dict[str, object], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        resolve(study, optimizer, chosen)


def test_what_decides_a_job(study: StudyConfig) -> None:
    def identity(config: StudyConfig, lr: float = 0.1, seeds: tuple[int, ...] = (0, 1)) -> str:
        return Case(config, "epochs", "digits", "adam").training_fingerprint({"lr": lr}, seeds)

    def changed(**update: object) -> StudyConfig:
        return StudyConfig.model_validate({**study.model_dump(), **update})

    base = identity(study)
    assert identity(changed(seed=7)) != base
    assert identity(study, lr=0.2) != base
    assert identity(study, seeds=(0, 2)) != base
    digits = {**study.model_dump()["datasets"], "digits": {**study.datasets["digits"].model_dump(), "epochs": 9}}
    assert identity(changed(datasets=digits)) != base
    assert identity(changed(name="renamed", statistics={"resamples": 9})) == base


GIVEN_BY_SLURM = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE")


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in GIVEN_BY_SLURM:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_no_gpu")
def test_devices_are_named() -> None:
    assert "thread" in device_name(torch.device("cpu"))
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="no CUDA device"):
        resolve_device("cuda")


# GPUs are numbered from 0, and none of them is 0 of them.
@pytest.mark.parametrize(("name", "value"), list(zip(GIVEN_BY_SLURM, ("0", "0,1", "2"), strict=True)))
@pytest.mark.usefixtures("_no_gpu")
def test_a_gpu_that_slurm_has_given_is_not_left_idle(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"Slurm has given this job a GPU on {platform.node()}, .*'device: cpu'"):
        resolve_device("auto")
    assert resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


@pytest.mark.usefixtures("_no_gpu")
def test_a_job_without_a_gpu_computes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(GIVEN_BY_SLURM, ("", "", "0"), strict=True):
        monkeypatch.setenv(name, value)
    assert resolve_device("auto") == torch.device("cpu")


def test_tensor_float_is_for_convolutions_alone() -> None:
    before = torch.backends.cudnn.allow_tf32
    try:
        for wanted in (False, True):
            set_precision(PrecisionConfig(tf32=wanted))
            assert torch.backends.cudnn.allow_tf32 == wanted
            assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before
