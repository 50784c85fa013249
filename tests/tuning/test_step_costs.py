"""Searches whose rungs count steps: measured once, the same wherever and however busy."""

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from adamqlr.errors import UserError
from adamqlr.jobs import between_steps
from adamqlr.jobs.interrupts import Interrupted
from adamqlr.stages.step_costs import measure_step_costs
from adamqlr.stages.tune import tune
from adamqlr.study.case import Case
from adamqlr.study.config import parse_config
from adamqlr.study.step_costs import StepCosts, read_step_costs, write_step_costs
from adamqlr.training.clock import TrainingClock
from adamqlr.tuning.trials import read_trials

SIZES = (100, 200, 5000)


def case(settings: dict[str, Any], pack: str = "never", **tuning: Any) -> Case:
    changes = {
        "optimizers": {"adam": {"space": {"batch_size": {"choice": list(SIZES)}}}},
        "tuning": {"trials": 8, "unit": "steps", "first_rung": 1, "reduction_factor": 2, "limit": 4, **tuning},
        "training": {"pack": pack},
        "datasets": {"digits": {"epochs": 100}},
    }
    return Case(parse_config({**settings, **changes}, "test"), "epochs", "digits", "adam")


def costs_in(folder: Path, *seconds: float) -> Path:
    path = folder / "costs.csv"
    write_step_costs(StepCosts(("batch_size",), dict(zip([(n,) for n in SIZES], seconds, strict=True)), path), {})
    return path


def trials_of(case: Case, folder: Path, costs: Path) -> xr.Dataset:
    tune(case, (0, 1), folder / "0.nc", costs_path=costs)
    return read_trials(folder / "0.nc")


def test_the_clock_has_no_say(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = costs_in(tmp_path, 0.1, 0.2, 0.25)
    found = trials_of(case(settings), tmp_path / "idle", costs)
    monkeypatch.setattr(TrainingClock, "read", lambda clock: 1e6)
    busy = trials_of(case(settings), tmp_path / "busy", costs)
    xr.testing.assert_identical(found.drop_attrs(), busy.drop_attrs())
    assert found["resource"].values.tolist() == [1, 2, 4]
    assert found["resource"].attrs["units"] == "s"
    # Steps of 0.1, 0.2 and 0.25 s end within a step of the rung.
    complete = found["seconds"].where(found["state"] == "complete", drop=True).values
    assert complete == pytest.approx(4)
    packed = trials_of(case(settings, "always"), tmp_path / "packed", costs)
    # Trials side by side are judged together, so that others may go on; where they do, they say the same.
    both = (packed["value"] / found["value"]).values
    assert both[np.isfinite(both)] == pytest.approx(1, rel=1e-3)
    assert np.isfinite(both[:, 0]).all()


@pytest.mark.parametrize("pack", ["never", "always"])
def test_a_killed_search_goes_on_to_the_same_trials(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: str
) -> None:
    costs = costs_in(tmp_path, 0.1, 0.2, 0.25)
    whole = trials_of(case(settings, pack), tmp_path / "whole", costs)
    calls = 0
    original = between_steps.BetweenSteps.__call__

    def stop_sometimes(self: Any, state: Any, *others: Any) -> None:
        nonlocal calls
        calls += 1
        if calls in (15, 40):
            self.save(state())
            raise Interrupted(signal.SIGTERM)
        original(self, state, *others)

    monkeypatch.setattr(between_steps.BetweenSteps, "__call__", stop_sometimes)
    for _ in range(2):
        with pytest.raises(Interrupted):
            trials_of(case(settings, pack), tmp_path / "killed", costs)
    again = trials_of(case(settings, pack), tmp_path / "killed", costs)
    xr.testing.assert_identical(whole.drop_attrs(), again.drop_attrs())


def test_costs_decide_which_search_it_is(settings: dict[str, Any], tmp_path: Path) -> None:
    one = trials_of(case(settings), tmp_path / "a", costs_in(tmp_path, 0.1, 0.2, 0.25))
    other = trials_of(case(settings), tmp_path / "b", costs_in(tmp_path, 0.1, 0.2, 0.5))
    assert one.attrs["identity"] != other.attrs["identity"]


def test_costs_are_measured_at_every_batch_size_and_read_again(settings: dict[str, Any], tmp_path: Path) -> None:
    began = time.monotonic()
    measure_step_costs(case(settings), tmp_path / "costs.csv")
    costs = read_step_costs(tmp_path / "costs.csv", ["batch_size"])
    assert list(costs.seconds) == [(size,) for size in SIZES]
    assert all(0 < seconds < time.monotonic() - began for seconds in costs.seconds.values())
    header, first, *_ = (tmp_path / "costs.csv").read_text().splitlines()
    assert header == "batch_size,seconds_per_step,device,torch,git_revision"
    assert torch.__version__ in first
    trials_of(case(settings, limit=1), tmp_path, tmp_path / "costs.csv")


def test_what_cannot_be_told_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "costs.csv"
    with pytest.raises(UserError, match=r"tuning\.unit: steps needs --step-costs"):
        tune(case(settings), (0, 1), tmp_path / "0.nc")
    with pytest.raises(UserError, match=r"tuning\.unit: epochs takes no --step-costs"):
        tune(case(settings, unit="epochs"), (0, 1), tmp_path / "0.nc", costs_path=costs_in(tmp_path, 1, 1, 1))
    for text, problem in (
        ("", "no column batch_size"),
        ("batch_size,seconds\n", "no column seconds_per_step"),
        ("batch_size,seconds_per_step\n100,fast\n", "line 2: could not convert"),
        ("batch_size,seconds_per_step\n100,0\n", "seconds_per_step must be positive"),
        ("batch_size,seconds_per_step\n50,0.1\n", r"no step of batch_size (100|200|5000): remove the file"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"{path}.*{problem}"):
            tune(case(settings), (0, 1), tmp_path / "0.nc", costs_path=path)
    with pytest.raises(UserError, match="no such file"):
        tune(case(settings), (0, 1), tmp_path / "0.nc", costs_path=tmp_path / "none.csv")
    untuned = Case(
        parse_config({**settings, "optimizers": ["adam_untuned"]}, "test"), "epochs", "digits", "adam_untuned"
    )
    with pytest.raises(UserError, match=r"^optimizer 'adam_untuned': nothing to tune on 'digits'$"):
        measure_step_costs(untuned, tmp_path / "costs.csv")


@pytest.mark.parametrize("missing", SIZES)
def test_a_batch_size_without_costs_is_told_before_anything_is_trained(
    settings: dict[str, Any], tmp_path: Path, missing: int
) -> None:
    path = tmp_path / "costs.csv"
    write_step_costs(StepCosts(("batch_size",), {(size,): 0.1 for size in SIZES if size != missing}, path), {})
    with pytest.raises(UserError, match=f"{path}: no step of batch_size {missing}: remove the file"):
        tune(case(settings), (0, 1), tmp_path / "search" / "0.nc", costs_path=path)
    assert not (tmp_path / "search").exists()
