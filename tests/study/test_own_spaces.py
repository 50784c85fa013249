"""Datasets with a search space of their own: what is tuned on them, over which range and for how long."""

from typing import Any

import pytest
import xarray as xr

from adamqlr.errors import UserError
from adamqlr.results.study import Study
from adamqlr.study.case import Case
from adamqlr.study.config import StudyConfig, parse_config
from adamqlr.tables.hyperparameters import search_space

OPTIMIZERS = ["adam", "adam_untuned", "kfac", "adamqlr_undamped", "adamqlr_untuned"]
SECONDS = {"unit": "seconds", "first_rung": 1.0, "limit": 900.0}


def study_of(datasets: Any, **changes: Any) -> StudyConfig:
    settings = {"name": "t", "datasets": datasets, "optimizers": OPTIMIZERS, "tuning": SECONDS, **changes}
    return parse_config(settings, "study.yaml")


def case_of(optimizer: str, dataset: str = "penn_treebank", settings: Any = None, **changes: Any) -> Case:
    return Case(study_of({dataset: settings or {}}, **changes), "epochs", dataset, optimizer)


def described(case: Case) -> dict[str, str]:
    return {name: distribution.describe() for name, distribution in case.space.items()}


def test_penn_treebank_is_tuned_as_in_the_paper() -> None:
    data = {"batch_size": "5, 10, 20, 35, 50, 100, 200", "length": "10, 20, 30, 40, 50, 60, 70, 80, 90, 100"}
    assert described(case_of("adam")) == {**data, "lr": "log-uniform 0.0001 … 100"}
    assert described(case_of("kfac")) == {**data, "damping": "log-uniform 1e-08 … 1"}, "it tunes no learning rate"
    assert described(case_of("adamqlr_undamped")) == data
    assert case_of("adam").rungs == [1, 4, 16, 64, 256, 1024, 3600]
    assert len(case_of("adam").seeds) == 10


def test_what_is_not_tuned_takes_the_datasets_own() -> None:
    for optimizer in ("adam_untuned", "adamqlr_untuned"):
        case = case_of(optimizer)
        assert not case.is_tuned
        found = case.hyperparameters({})
        assert (found["batch_size"], found["length"]) == (30, 70)
    assert case_of("adam").hyperparameters({"batch_size": 5, "length": 10})["length"] == 10
    chosen = case_of("adamqlr_untuned").hyperparameters({"batch_size": 3200})
    assert chosen["batch_size"] == 3200, "what is chosen by hand holds"


def test_what_is_fixed_is_not_tuned() -> None:
    case = case_of("adam", optimizers={"adam": {"options": {"length": 20, "lr": 0.1}}})
    assert set(case.space) == {"batch_size"}
    assert case.hyperparameters({})["length"] == 20
    nothing = case_of("adam", optimizers={"adam": {"options": {"batch_size": 5, "lr": 0.1}}})
    assert not nothing.is_tuned
    study = parse_config({"name": "t", "datasets": ["rosenbrock"], "optimizers": ["adam"]}, "test")
    assert set(Case(study, "epochs", "rosenbrock", "adam").space) == {"lr"}, "a function has no rows"


def test_any_dataset_may_have_its_own() -> None:
    space = {"lr": {"loguniform": [1e-3, 1e-2]}, "damping": {"choice": [1, 2]}}
    settings = {"space": space, "tuning_limit": 50}
    batches = "50, 100, 200, 400, 800, 1600, 3200"
    adam = case_of("adam", "digits", settings)
    assert described(adam) == {"batch_size": batches, "lr": "log-uniform 0.001 … 0.01"}
    assert described(case_of("kfac", "digits", settings)) == {"batch_size": batches, "damping": "1, 2"}
    assert adam.rungs == [1, 4, 16, 50]
    assert all(1e-3 <= one["lr"] <= 1e-2 for one in adam.configurations())
    assert case_of("adamqlr_untuned", "digits", settings).hyperparameters({})["batch_size"] == 3200


def test_seconds_of_a_dataset_limit_no_epochs() -> None:
    epochs = {"unit": "epochs", "first_rung": 5, "limit": 20}
    assert case_of("adam", tuning=epochs).rungs == [5, 20]
    suites = {"runtime": {"budget": "runtime", "objective": "train_loss"}}
    study = study_of({"digits": {"tuning_limit": 50, "runtime": 8}}, suites=suites)
    assert Case(study, "runtime", "digits", "adam").rungs == [1, 4, 8]


def test_only_a_search_is_another_one() -> None:
    plain, limited = case_of("adam", "digits"), case_of("adam", "digits", {"tuning_limit": 50})
    spaced = case_of("adam", "digits", {"space": {"lr": {"loguniform": [1e-3, 1e-2]}}})
    assert len({case.search_fingerprint() for case in (plain, limited, spaced)}) == 3
    assert len({case.training_fingerprint({"lr": 0.1}, [0]) for case in (plain, limited, spaced)}) == 1


def test_a_batch_size_of_a_cataloged_optimizers_own_decides() -> None:
    space = {"lr": {"choice": [0.1]}}
    cases = [case_of("adam", "digits", optimizers={"adam": {"batch_size": size, "space": space}}) for size in (50, 100)]
    assert len({case.search_fingerprint() for case in cases}) == 2
    assert len({case.training_fingerprint({"lr": 0.1}, [0]) for case in cases}) == 2


def fingerprints(dataset: dict[str, Any], suite: str) -> tuple[str, str]:
    suites = {"epochs": {}, "runtime": {"budget": "runtime", "objective": "train_loss"}}
    case = Case(study_of({"digits": dataset}, suites=suites), suite, "digits", "adam")
    return case.training_fingerprint({"lr": 0.1}, [0]), case.search_fingerprint()


@pytest.mark.parametrize("suite", ["epochs", "runtime"])
@pytest.mark.parametrize(
    ("changed", "decides"),
    [
        ({"seeds": 7}, {}),
        ({"suites": ["epochs", "runtime"]}, {}),
        ({"runtime": 7.0}, {"runtime": (True, True)}),
        ({"epochs": 7}, {"epochs": (True, True)}),
        ({"objective": "train_loss"}, {"epochs": (False, True), "runtime": (False, True)}),
    ],
)
def test_a_setting_concerns_what_it_decides(
    suite: str, changed: dict[str, Any], decides: dict[str, tuple[bool, bool]]
) -> None:
    before, after = fingerprints({}, suite), fingerprints(changed, suite)
    assert (before[0] != after[0], before[1] != after[1]) == decides.get(suite, (False, False))


def test_batch_sizes_of_its_own_decide_what_untuned_optimizers_train_with() -> None:
    plain = case_of("adamqlr_untuned", "digits")
    spaced = case_of("adamqlr_untuned", "digits", {"space": {"batch_size": {"choice": [5, 10]}}})
    assert [case.hyperparameters({})["batch_size"] for case in (plain, spaced)] == [3200, 200]
    assert plain.training_fingerprint({}, [0]) != spaced.training_fingerprint({}, [0])


def test_fingerprints_are_those_of_before() -> None:
    """Of datasets without a space of their own: what was computed stays valid."""
    study = parse_config({"name": "t", "datasets": ["digits"], "optimizers": ["adam"]}, "t")
    case = Case(study, "epochs", "digits", "adam")
    assert case.search_fingerprint() == "806e7b4a6ba822c5"
    assert case.training_fingerprint({"batch_size": 50, "lr": 0.1}, [0]) == "6eabc7cb455b48c1"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"space": {"lrr": {"uniform": [0, 1]}}},
            "datasets.digits.space: no optimizer tunes 'lrr': there are batch_size",
        ),
        ({"space": {"length": {"choice": [5]}}}, "datasets.digits.space: no optimizer tunes 'length'"),
        (
            {"space": {"batch_size": {"uniform": [5, 10]}}},
            "datasets.digits: space.batch_size: expected {choice: […]} of",
        ),
        ({"space": {"batch_size": {"choice": [0.5]}}}, "datasets.digits: space.batch_size: expected {choice: […]} of"),
        (
            {"space": {"batch_size": {"choice": [5]}}, "fixed_batch_size": True},
            "datasets.digits: space: 'batch_size' is tuned, and 'fixed_batch_size' says that it is not: drop one of",
        ),
        ({"tuning_limit": 0}, "datasets.digits.tuning_limit: Input should be greater than 0"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as raised:
        study_of({"digits": settings})
    assert str(raised.value).startswith(f"study.yaml: {problem}")


def test_lengths_that_are_none_are_refused() -> None:
    with pytest.raises(UserError, match=r"optimizer 'adam': length must be a positive whole number, got 2\.5"):
        case_of("adam").hyperparameters({"length": 2.5})


def test_a_stored_study_has_the_space_that_it_had() -> None:
    stored = study_of(["penn_treebank"]).model_dump(mode="json")
    for later in ("space", "tuning_limit"):
        del stored["datasets"]["penn_treebank"][later]
    stored["datasets"]["penn_treebank"]["fixed_batch_size"] = True
    case = Case(parse_config(stored, "stored", may_lack_code=True, is_complete=True), "epochs", "penn_treebank", "adam")
    assert described(case) == {"lr": "log-uniform 1e-06 … 1"}


def test_the_table_shows_what_a_dataset_has_of_its_own() -> None:
    study = Study(xr.DataTree(), study_of(["digits", "penn_treebank"]))
    shown = search_space(study, "epochs").shown
    rows = {(row.Dataset, row.Optimizer, row.Hyperparameter): row.Range for row in shown.itertuples()}
    assert rows["all without their own", "Adam", "lr"] == "log-uniform 1e-06 … 1"
    assert rows["Penn Treebank", "all that tune it", "lr"] == "log-uniform 0.0001 … 100"
    assert rows["Penn Treebank", "all that are tuned", "batch_size"] == "5, 10, 20, 35, 50, 100, 200"
    assert rows["Penn Treebank", "all that are tuned", "training time"] == "at most 3600 s"
    assert not any(dataset == "Digits" for dataset, _, _ in rows)


def test_the_table_shows_no_batch_size_that_no_search_varies() -> None:
    shown = search_space(Study(xr.DataTree(), study_of(["rosenbrock"])), "epochs").shown
    rows = {(row.Dataset, row.Hyperparameter): row.Range for row in shown.itertuples()}
    assert rows["all without their own", "lr"] == "log-uniform 1e-06 … 1"
    assert ("all without their own", "batch_size") not in rows
    assert rows["Rosenbrock", "batch_size"] == "1, not tuned"


def test_the_table_shows_no_limit_that_nothing_keeps_to() -> None:
    epochs = study_of(["digits", "penn_treebank"], tuning={"unit": "epochs", "first_rung": 5, "limit": 20})
    assert "training time" not in set(search_space(Study(xr.DataTree(), epochs), "epochs").shown["Hyperparameter"])


def test_what_is_said_of_a_known_dataset_leaves_the_rest_of_its_space_and_network() -> None:
    settings = {"space": {"length": {"choice": [35]}}, "transformer": {"length": 30}}
    dataset = case_of("adam", settings=settings).settings
    usual = case_of("adam").settings
    assert dataset.space["length"].describe() == "35"
    assert {name: dataset.space[name] for name in ("batch_size", "lr")} == {
        name: usual.space[name] for name in ("batch_size", "lr")
    }
    assert dataset.transformer == usual.transformer.model_copy(update={"length": 30})
