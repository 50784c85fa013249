"""What happens between steps takes no training time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adamqlr.jobs import between_steps
from adamqlr.jobs.checkpoint import Checkpoint
from adamqlr.stages.train import train
from adamqlr.study.case import Case
from adamqlr.study.config import parse_config
from adamqlr.training.clock import TrainingClock


def test_a_slow_disk_takes_no_training_time(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints are written while no clock of a run goes on, and are what a run goes on from."""
    running: list[TrainingClock] = []
    written: list[int] = []
    original = TrainingClock.running

    @contextmanager
    def noted(clock: TrainingClock) -> Iterator[None]:
        running.append(clock)
        with original(clock):
            yield
        running.remove(clock)

    def save(checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        before = [clock.read() for clock in running]
        written.append(len(before))
        assert before == [clock.read() for clock in running]

    monkeypatch.setattr(TrainingClock, "running", noted)
    monkeypatch.setattr(Checkpoint, "save", save)
    monkeypatch.setattr(between_steps, "_TICK_SECONDS", 0.0)
    config = {**settings, "datasets": {"digits": {"epochs": 2}}, "training": {"checkpoint_seconds": 1e-9}}
    train(Case(parse_config(config, "test"), "epochs", "digits", "adam_untuned"), [0], {}, tmp_path / "runs.nc")
    assert 1 in written
