"""Shards that stop in the middle, and go on beside others or with other settings of how they compute."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adamqlr.jobs.checkpoint import Checkpoint
from adamqlr.jobs.interrupts import Interrupted, StopRequest
from adamqlr.problems.problem import Problem, load_problem
from adamqlr.study.case import Case
from adamqlr.study.config import parse_config
from adamqlr.tuning import shard as shard_module
from adamqlr.tuning.shard import Shard


class StopAfter(StopRequest):
    """Asks to stop after so many looks, one a step."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    @property
    def signum(self) -> int | None:  # type: ignore[override]
        self._left -= 1
        return signal.SIGTERM if self._left < 0 else None


@pytest.fixture(autouse=True)
def _step_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "measure_step_seconds", lambda problem, spec: 1e-3)


def make(settings: dict[str, Any], pack: str = "never", **tuning: Any) -> tuple[Case, Problem]:
    config = {**settings, "datasets": {"digits": {"epochs": 16}}, "optimizers": ["adam"], "training": {"pack": pack}}
    case = Case(parse_config({**config, "tuning": tuning}, "test"), "epochs", "digits", "adam")
    return case, load_problem("digits", case.study, torch.device("cpu"))


def test_a_promoted_trial_goes_on_whatever_others_have_found_since(settings: dict[str, Any], tmp_path: Path) -> None:
    case, problem = make(settings, trials=8, unit="epochs", first_rung=1, limit=16, shards=2)
    journal, checkpoint = tmp_path / ".journal", Checkpoint(tmp_path / "0.nc", "first")

    def first() -> Shard:
        return Shard(case, 0, 2, journal, problem)

    steps_per_epoch = -(-len(problem.train) // case.hyperparameters(case.configurations()[0])["batch_size"])
    with pytest.raises(Interrupted):
        first().run(checkpoint, StopAfter(2 * steps_per_epoch))
    assert (checkpoint.load() or {})["rung"] == 1
    Shard(case, 1, 2, journal, problem).run(Checkpoint(tmp_path / "1.nc", "second"), StopRequest())
    shard = first()
    shard.run(checkpoint, StopRequest())
    promoted = shard.results()[0]
    assert len(promoted.values) > 1
    others = [value for trial in Shard(case, 1, 2, journal, problem).results() for value in trial.values[:1]]
    # By the values of today it would not have been: else this shows nothing.
    assert sum(value < promoted.values[0] for value in others) >= max(1, 5 // case.study.tuning.reduction_factor)


@pytest.mark.parametrize(("before", "after"), [("auto", "always"), ("always", "auto"), ("always", "never")])
def test_a_stopped_search_ends_where_others_are_best_trained_together(
    settings: dict[str, Any], tmp_path: Path, before: str, after: str
) -> None:
    tuning = {"trials": 12, "unit": "seconds", "first_rung": 0.02, "limit": 0.1}
    journal, checkpoint = tmp_path / ".journal", Checkpoint(tmp_path / "trials.nc", "one")
    (case, problem), (others_case, _) = make(settings, before, **tuning), make(settings, after, **tuning)
    with pytest.raises(Interrupted):
        Shard(case, 0, 1, journal, problem, may_pack=True).run(checkpoint, StopAfter(30))
    saved = checkpoint.load() or {}
    shard = Shard(others_case, 0, 1, journal, problem, may_pack=True)
    shard.run(checkpoint, StopRequest())
    trials = shard.results()
    assert [trial.number for trial in trials] == list(range(12))
    assert all(np.isfinite(trial.values[:1]).all() or trial.state == "diverged" for trial in trials)
    assert saved["numbers"]
