"""Configurations, rungs, the promotion rule, shards and the files they write."""

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
import xarray as xr
import yaml

from adamqlr.errors import UserError
from adamqlr.stages.select import select
from adamqlr.stages.tune import tune
from adamqlr.study.case import Case
from adamqlr.study.config import StudyConfig, parse_config
from adamqlr.study.space import choice, draw_configurations, loguniform, one_minus_loguniform
from adamqlr.tuning.asha import AshaPruner
from adamqlr.tuning.trials import Trial, best_trial, read_best, read_trials, summary, trials_dataset, write_best

SPACE = {"lr": loguniform(1e-6, 1e-1), "momentum": one_minus_loguniform(1e-4, 0.3), "batch_size": choice(50, 100)}


def test_configurations_are_drawn_once_from_a_seed_within_bounds() -> None:
    drawn = draw_configurations(SPACE, 500, seed=1)
    assert drawn == draw_configurations(SPACE, 500, seed=1)
    assert drawn[:100] == draw_configurations(SPACE, 100, seed=1)
    assert drawn != draw_configurations(SPACE, 500, seed=2)
    lr = np.array([c["lr"] for c in drawn])
    assert lr.min() >= 1e-6
    assert lr.max() <= 1e-1
    # Log-uniform: as many in each decade.
    counts, _ = np.histogram(np.log10(lr), bins=5, range=(-6, -1))
    assert counts.min() > 70
    assert all(0.7 <= c["momentum"] <= 1 - 1e-4 for c in drawn)
    assert {c["batch_size"] for c in drawn} == {50, 100}


def study(suite: str = "epochs", **tuning: Any) -> StudyConfig:
    datasets = {"digits": {"epochs": 50, "runtime": 300}, "cifar10": {}}
    return parse_config(
        {"name": "t", "suites": [suite], "datasets": datasets, "optimizers": ["adam"], "tuning": tuning}, "test"
    )


def test_rungs_are_the_papers() -> None:
    assert Case(study(), "epochs", "digits", "adam").rungs == [1, 4, 16, 64, 256, 900]
    assert Case(study("runtime_train"), "runtime_train", "digits", "adam").rungs == [1, 4, 16, 64, 256, 300]
    assert Case(study("runtime_train"), "runtime_train", "cifar10", "adam").rungs[-1] == 3600
    assert Case(study(unit="epochs", limit=900), "epochs", "digits", "adam").rungs == [1, 4, 16, 50]


def test_trials_are_limited_by_epochs_and_seconds_as_the_suite_says() -> None:
    # The rungs are 1, 4, 16, …
    assert Case(study(), "epochs", "digits", "adam").rung_limit(2, steps_per_epoch=10) == (500, 16)
    runtime = Case(study("runtime_train"), "runtime_train", "digits", "adam")
    assert runtime.rung_limit(2, steps_per_epoch=10) == (None, 16)
    assert Case(study(unit="epochs"), "epochs", "digits", "adam").rung_limit(1, steps_per_epoch=10) == (40, None)


@pytest.mark.parametrize(
    ("others", "value", "pruned"),
    [
        ([], 1.0, False),
        ([2.0], 1.0, False),
        ([0.5], 1.0, True),
        ([0.5, 2.0, 3.0], 1.0, True),
        ([0.5, 2, 3, 4, 5, 6, 7], 1.0, False),
        ([0.5, 0.6, 3, 4, 5, 6, 7], 1.0, True),
        ([float("inf")] * 7, float("inf"), False),
        ([1.0, 2.0] + [float("inf")] * 5, float("inf"), True),
    ],
)
def test_the_best_quarter_is_promoted(others: list[float], value: float, pruned: bool) -> None:
    search = optuna.create_study(pruner=AshaPruner(4))
    for other in others:
        search.ask().report(other, 0)
    trial = search.ask()
    trial.report(value, 0)
    assert trial.should_prune() == pruned


@pytest.mark.parametrize("shards", [1, 3])
def test_shards_together_train_every_configuration_once(study: StudyConfig, tmp_path: Path, shards: int) -> None:
    paths = [tmp_path / "shards" / f"{k}.nc" for k in range(shards)]
    for k, path in enumerate(paths):
        tune(Case(study, "epochs", "digits", "adam"), (k, shards), path)
    assert (tmp_path / "shards" / ".journal").exists()
    select(paths, tmp_path / "trials.nc", tmp_path / "best.yaml")
    assert not (tmp_path / "shards" / ".journal").exists()
    trials = read_trials(tmp_path / "trials.nc")
    assert trials["trial"].values.tolist() == [0, 1, 2, 3]
    configurations = Case(study, "epochs", "digits", "adam").configurations()
    np.testing.assert_allclose(trials["hyperparameter_lr"], [c["lr"] for c in configurations])
    assert trials["resource"].values.tolist() == [1, 2, 3]
    assert trials["resource"].attrs["units"] == "epoch"
    assert set(trials["state"].values) <= {"complete", "pruned"}
    complete = trials["state"] == "complete"
    assert np.isfinite(trials["value"].isel(rung=-1)[complete]).all()
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert best["value"] == float(trials["value"].isel(rung=-1).min())
    chosen = read_best(tmp_path / "best.yaml", "epochs", "digits", "adam")
    assert chosen == configurations[best["trial"]]


def test_a_search_in_one_job_chooses_as_select_does(study: StudyConfig, tmp_path: Path) -> None:
    case = Case(study, "epochs", "digits", "adam")
    tune(case, (0, 1), tmp_path / "shards" / "0.nc")
    select([tmp_path / "shards" / "0.nc"], tmp_path / "trials.nc", tmp_path / "best.yaml")
    tune(case, (0, 1), tmp_path / "one" / "trials.nc", best=tmp_path / "one" / "best.yaml")
    assert (tmp_path / "one" / "best.yaml").read_text() == (tmp_path / "best.yaml").read_text()
    once, joined = (read_trials(folder / "trials.nc") for folder in (tmp_path / "one", tmp_path))
    # Of what it took there is more than one measurement.
    xr.testing.assert_equal(once.drop_vars("seconds"), joined.drop_vars("seconds"))
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"trials.nc", "best.yaml"}


def test_a_configuration_that_diverges_is_recorded_and_never_chosen(settings: dict[str, Any], tmp_path: Path) -> None:
    wild = {"sgd_minimal": {"space": {"lr": {"choice": [1e9, 1e-3]}, "batch_size": {"choice": [100]}}}}
    config = parse_config({**settings, "optimizers": wild, "datasets": {"diabetes": {"epochs": 30}}}, "test")
    tune(Case(config, "epochs", "diabetes", "sgd_minimal"), (0, 1), tmp_path / "s" / "0.nc")
    select([tmp_path / "s" / "0.nc"], tmp_path / "trials.nc", tmp_path / "best.yaml")
    trials = read_trials(tmp_path / "trials.nc")
    wild_ones = trials["hyperparameter_lr"] == 1e9
    assert wild_ones.any()
    assert set(trials["state"].values[wild_ones]) <= {"diverged"}
    assert np.isinf(trials["value"].isel(rung=0)[wild_ones]).all()
    assert read_best(tmp_path / "best.yaml", "epochs", "diabetes", "sgd_minimal")["lr"] == 1e-3


ATTRS = {
    "objective": "validation_loss",
    "suite": "epochs",
    "dataset": "d",
    "optimizer": "o",
    "identity": "i",
    "trials": 3,
}


def trial(number: int, *values: float) -> Trial:
    return Trial(number, {"lr": 0.1 * number}, values, "complete", 1.0)


def test_the_best_is_the_lowest_at_the_last_rung_that_anyone_reached() -> None:
    trials = trials_dataset([trial(0, 0.1), trial(1, 0.5, 0.4), trial(2, 0.3, 0.2)], [1, 4, 16], "seconds", ATTRS)
    assert int(best_trial(trials)["trial"]) == 2
    inf = float("inf")
    trials = trials_dataset([trial(0, 0.1), trial(1, 0.5, inf), trial(2, 0.3, inf)], [1, 4, 16], "seconds", ATTRS)
    assert int(best_trial(trials)["trial"]) == 0


def test_where_all_trials_diverge_final_runs_are_of_the_one_that_was_trained_longest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = [1.0, 3.0, 2.0]
    diverged = [Trial(number, {"lr": 0.1 * number}, [np.inf], "diverged", seconds[number]) for number in range(3)]
    trials = trials_dataset(diverged, [1, 4], "seconds", ATTRS)
    assert int(best_trial(trials)["trial"]) == 1
    write_best(trials, tmp_path / "best.yaml")
    assert read_best(tmp_path / "best.yaml", "s", "d", "o") == {"lr": 0.1}
    assert "all 3 configurations diverged: final runs are of trial 1" in caplog.text


def test_a_trial_that_diverged_later_is_chosen_only_where_all_did() -> None:
    inf = float("inf")
    diverged = Trial(0, {"lr": 0.1}, (0.3, 0.2, inf), "diverged", 1.0)
    pruned = Trial(1, {"lr": 0.2}, (0.5, 0.6), "pruned", 1.0)
    for trials, best in (([diverged, pruned], 1), ([diverged], 0)):
        assert int(best_trial(trials_dataset(trials, [1, 4, 16], "seconds", ATTRS))["trial"]) == best


def test_a_search_is_summed_up_in_a_line() -> None:
    inf = float("inf")
    found = [trial(0, 0.1), trial(1, 0.5, 0.25), Trial(2, {"lr": 1.0}, [inf], "diverged", 1.0)]
    said = summary(trials_dataset(found, [1, 4], "seconds", ATTRS))
    assert said == "trials: 2 complete, 1 diverged; best validation loss 0.25 in trial 1"
    assert summary(trials_dataset(found[2:], [1, 4], "seconds", ATTRS)) == "trials: 1 diverged"


def test_shards_that_do_not_belong_together_are_named(study: StudyConfig, tmp_path: Path) -> None:
    first, other = tmp_path / "0.nc", tmp_path / "other" / "0.nc"
    tune(Case(study, "epochs", "digits", "adam"), (0, 2), first)
    tune(Case(study, "epochs", "diabetes", "adam"), (0, 2), other)
    outputs = (tmp_path / "trials.nc", tmp_path / "best.yaml")
    with pytest.raises(UserError, match="belongs to another search"):
        select([first, other], *outputs)
    with pytest.raises(UserError, match="trials missing or doubled, the first is"):
        select([first], *outputs)
    assert not any(path.exists() for path in outputs)
    with pytest.raises(UserError, match="nothing to tune"):
        tune(Case(study, "epochs", "digits", "adam_untuned"), (0, 1), first)


def test_files_of_best_hyperparameters_are_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "best.yaml"
    with pytest.raises(UserError, match=r"best\.yaml: no such file"):
        read_best(path, "epochs", "digits", "adam")
    path.write_text("- 1\n")
    with pytest.raises(UserError, match="not a file of best hyperparameters"):
        read_best(path, "epochs", "digits", "adam")
    path.write_text("{suite: epochs, dataset: digits, optimizer: adam, hyperparameters: {lr: 0.1}}")
    with pytest.raises(UserError, match="is of digits/adam, not of digits/sgd_full"):
        read_best(path, "epochs", "digits", "sgd_full")
    assert read_best(path, "epochs", "digits", "adam") == {"lr": 0.1}
    assert not caplog.records
    assert read_best(path, "runtime_train", "digits", "adam") == {"lr": 0.1}
    assert "best.yaml: tuned for the suite 'epochs', and not for 'runtime_train'" in caplog.text


@pytest.mark.gpu
def test_a_shard_on_cuda(study: StudyConfig, tmp_path: Path) -> None:
    config = study.model_copy(update={"device": "cuda"})
    assert torch.cuda.is_available()
    tune(Case(config, "epochs", "digits", "adamqlr"), (0, 1), tmp_path / "0.nc")
    assert read_trials(tmp_path / "0.nc").sizes["trial"] == 4
