"""Configurations side by side in one process: the values of separate ones, and shards that are killed."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
import xarray as xr

from adamqlr.jobs import between_steps
from adamqlr.jobs.interrupts import Interrupted
from adamqlr.problems.problem import load_problem
from adamqlr.stages.tune import tune
from adamqlr.study.case import Case
from adamqlr.study.config import StudyConfig, parse_config
from adamqlr.study.limit import Limit
from adamqlr.study.optimizers import OPTIMIZERS as CATALOGUE
from adamqlr.training import side_by_side
from adamqlr.training.run import RunSpec
from adamqlr.training.step_time import measure_step_seconds
from adamqlr.tuning import shard
from adamqlr.tuning.trials import read_trials

STEP_SECONDS = 0.01
BATCH_SIZES = {"choice": [100, 200, 5000, 6000]}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd_full": {},
    "adam_eps": {},
    "adamqlr": {"options": {"lr_clipping": 0.1}},
    "kfac": {"options": {"fisher": "exact", "lr_clipping": 0.1}, "space": {"damping": {"loguniform": [1e-2, 1]}}},
    "kfac_unadaptive": {"options": {"fisher": "exact"}, "space": {"lr": {"loguniform": [1e-6, 1e-1]}}},
    "baydin_sgd": {"space": {"hypergradient_lr": {"loguniform": [1e-6, 1e-4]}, "lr": {"loguniform": [1e-4, 1e-2]}}},
}


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes whose steps have been measured, which takes no time here."""
    sizes: list[int] = []

    def measure(problem: Any, spec: RunSpec) -> float:
        sizes.append(spec.hyperparameters["batch_size"])
        # A second measurement of a batch size would find something else.
        return STEP_SECONDS * len(sizes)

    monkeypatch.setattr(shard, "measure_step_seconds", measure)
    return sizes


@pytest.fixture
def make(settings: dict[str, Any]) -> Callable[..., StudyConfig]:
    """Make a study of one optimizer, searched side by side or not."""

    def make(optimizer: str, pack: str = "always", tuning: dict[str, Any] | None = None, **changes: Any) -> StudyConfig:
        own = OPTIMIZERS.get(optimizer, {})
        optimizers = {optimizer: {**own, "space": {"batch_size": BATCH_SIZES, **own.get("space", {})}}}
        return parse_config(
            {
                **settings,
                "optimizers": optimizers,
                "training": {"pack": pack, **changes.pop("training", {})},
                "tuning": {**settings["tuning"], "trials": 9, **(tuning or {})},
                **changes,
            },
            "test",
        )

    return make


Make = Callable[..., StudyConfig]


@pytest.mark.parametrize("dataset", ["digits", "diabetes"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_values_are_those_of_separate_trials(
    make: Make, optimizer: str, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "MOST_MEMBERS", 3)
    found: dict[str, xr.Dataset] = {}
    for mode in ("always", "never"):
        output = tmp_path / mode / "0.nc"
        tune(Case(make(optimizer, mode), "epochs", dataset, optimizer), (0, 1), output)
        found[mode] = read_trials(output)
        assert [path.name for path in output.parent.glob(".*")] == [".journal"]
    packed, alone = found.values()
    assert packed["trial"].values.tolist() == list(range(9))
    assert set(packed["state"].values) <= {"complete", "pruned"}
    assert np.isfinite(packed["value"].isel(rung=0)).all()
    for name in packed.data_vars:
        if str(name).startswith("hyperparameter_"):
            np.testing.assert_array_equal(packed[name], alone[name])
    both = np.isfinite(packed["value"].values) & np.isfinite(alone["value"].values)
    assert both.sum() > 9
    np.testing.assert_allclose(packed["value"].values[both], alone["value"].values[both], rtol=2e-3)
    assert (packed.attrs["packed_trials"], alone.attrs["packed_trials"]) == (3, 1)
    assert alone.attrs["time_source"] == "measured"
    assert packed.attrs["time_source"].startswith("steps taken times the seconds of a step")


def test_rungs_of_seconds_are_numbers_of_steps(make: Make, tmp_path: Path, measured: list[int]) -> None:
    tuning = {"unit": "seconds", "first_rung": 0.1, "limit": 0.4}
    config = make("adam", tuning=tuning, datasets={"digits": {"epochs": 3}})
    tune(Case(config, "epochs", "digits", "adam"), (0, 1), tmp_path / "0.nc")
    trials = read_trials(tmp_path / "0.nc")
    assert trials["resource"].values.tolist() == [0.1, 0.2, 0.4]
    # Full batches are one pack, whose three steps are all epochs that there are.
    assert measured[:2] == [100, 200]
    assert len(measured) == 3
    rows = len(load_problem("digits", config, torch.device("cpu")).train)
    for size, step_seconds in zip((100, 200, 5000), (0.01, 0.02, 0.03), strict=True):
        most = 3 * max(1, round(rows / size))
        possible = {min(round(resource / step_seconds), most) * step_seconds for resource in (0.1, 0.2, 0.4)}
        sizes = trials["hyperparameter_batch_size"]
        for seconds in trials["seconds"].values[(sizes == size) if size < 5000 else (sizes >= size)]:
            assert min(abs(seconds - one) for one in possible) < 1e-9


def test_limits_in_steps() -> None:
    assert Limit(steps=7).in_steps(0.1) == 7
    assert Limit(seconds=1.0).in_steps(0.3) == 3
    assert Limit(seconds=1.0).in_steps(5.0) == 1
    assert Limit(steps=7, seconds=1.0).in_steps(0.1) == 7


def test_a_run_that_diverges_is_measured(study: StudyConfig) -> None:
    problem = load_problem("diabetes", study, torch.device("cpu"))
    doomed = RunSpec(CATALOGUE["sgd_minimal"], {"lr": 1e9, "batch_size": 100}, 0)
    assert 0 < measure_step_seconds(problem, doomed, seconds=0.1) < 0.1


def test_configurations_that_diverge_leave_the_others_alone(make: Make, tmp_path: Path) -> None:
    found: dict[str, xr.Dataset] = {}
    space = {"sgd_minimal": {"space": {"lr": {"choice": [1e9, 1e-3, 2e-3]}, "batch_size": {"choice": [100]}}}}
    for mode in ("always", "never"):
        config = make("sgd_minimal", mode, datasets={"diabetes": {"epochs": 30}}, optimizers=space)
        tune(Case(config, "epochs", "diabetes", "sgd_minimal"), (0, 1), tmp_path / mode / "0.nc")
        found[mode] = read_trials(tmp_path / mode / "0.nc")
    packed, alone = found["always"], found["never"]
    wild = (packed["hyperparameter_lr"] == 1e9).values
    assert 0 < wild.sum() < 9
    assert set(packed["state"].values[wild]) == {"diverged"}
    assert "diverged" not in packed["state"].values[~wild]
    np.testing.assert_array_equal(packed["value"].isel(rung=0).values[wild], np.inf)
    ours, theirs = (trials["value"].isel(rung=0).values[~wild] for trials in (packed, alone))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert packed["value"].isel(rung=-1).notnull().any()


def test_a_pack_that_diverges_as_a_whole_ends(make: Make, tmp_path: Path) -> None:
    wild = {"sgd_minimal": {"space": {"lr": {"choice": [1e9]}, "batch_size": {"choice": [100]}}}}
    config = make("sgd_minimal", optimizers=wild, datasets={"diabetes": {"epochs": 10**6}}, tuning={"limit": 10**6})
    tune(Case(config, "epochs", "diabetes", "sgd_minimal"), (0, 1), tmp_path / "0.nc")
    trials = read_trials(tmp_path / "0.nc")
    assert set(trials["state"].values) == {"diverged"}
    assert trials["seconds"].max() < 10


class Killed(BaseException):
    pass


def disturb(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Kill the shard right after journal entries, or ask it to stop, again and again."""
    entries = 0

    def disturbed(original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **options: Any) -> Any:
            nonlocal entries
            result = original(*arguments, **options)
            entries += 1
            if entries % every == 0:
                if entries // every % 3 == 0:
                    signal.raise_signal(signal.SIGTERM)
                else:
                    raise Killed
            return result

        return write

    monkeypatch.setattr(optuna.trial.Trial, "report", disturbed(optuna.trial.Trial.report))
    monkeypatch.setattr(optuna.Study, "tell", disturbed(optuna.Study.tell))


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("checkpoint_seconds", [1e-6, 1e6])
@pytest.mark.parametrize(
    "tuning", [{"unit": "epochs", "limit": 12}, {"unit": "seconds", "first_rung": 0.05, "limit": 0.4}]
)
def test_killed_and_rerun(
    make: Make,
    tuning: dict[str, Any],
    checkpoint_seconds: float,
    every: int,
    measured: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(between_steps, "_TICK_SECONDS", 0.0)
    training = {"checkpoint_seconds": checkpoint_seconds}
    config = make("adamqlr", tuning=tuning, training=training, datasets={"diabetes": {"epochs": 9}})
    arguments = (Case(config, "epochs", "diabetes", "adamqlr"), (0, 1))
    undisturbed, output = tmp_path / "undisturbed" / "0.nc", tmp_path / "killed" / "0.nc"
    tune(*arguments, undisturbed)
    sizes = measured.copy()
    measured.clear()
    disturb(monkeypatch, every)
    attempts = 0
    while not output.exists():
        attempts += 1
        assert attempts < 100, "no progress"
        try:
            tune(*arguments, output)
        except (Killed, Interrupted):
            continue
    assert attempts > 3
    assert measured == sizes
    interrupted, wanted = read_trials(output), read_trials(undisturbed)
    for name, variable in wanted.variables.items():
        np.testing.assert_array_equal(interrupted[name].values, variable.values, err_msg=str(name))
    assert [path.name for path in output.parent.glob(".*")] == [".journal"]


def test_what_may_be_packed(settings: dict[str, Any]) -> None:
    def may(
        suite: str = "epochs",
        optimizer: str = "adam",
        dataset: str = "digits",
        space: dict[str, Any] | None = None,
        **training: Any,
    ) -> bool:
        config = {
            **settings,
            "suites": ["epochs", "runtime_train"],
            "optimizers": {optimizer: {"space": space or {}}},
            "training": training,
        }
        return Case(parse_config(config, "test"), suite, dataset, optimizer).can_pack_trials

    assert may()
    assert may(optimizer="kfac_unadaptive")
    assert not may(pack="never")
    assert not may(suite="runtime_train")
    assert not may(dataset="rosenbrock")
    assert may(space={"eps": {"loguniform": [1e-8, 1]}})
    assert not may(optimizer="adamqlr", space={"weight_decay": {"loguniform": [1e-8, 1]}})


def test_on_a_cpu_what_fits_the_cache_is_packed_by_default(make: Make, tmp_path: Path) -> None:
    batches = {"adam": {"space": {"batch_size": {"choice": [100, 2000]}}}}
    tuning = {"trials": 12, "unit": "seconds", "first_rung": 0.02, "limit": 0.05}
    config = make("adam", "auto", tuning=tuning, optimizers=batches, datasets={"digits": {"epochs": 3}})
    tune(Case(config, "epochs", "digits", "adam"), (0, 1), tmp_path / "0.nc")
    trials = read_trials(tmp_path / "0.nc")
    small = int((trials["hyperparameter_batch_size"] == 100).sum())
    assert 3 <= small < 12
    assert trials.attrs["packed_trials"] == small


def test_random_numbers_go_on_where_configurations_end(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K-FAC's sampled targets do not begin anew at a rung that ends somebody."""
    states: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = shard.Shard._without_ended

    def watched(self: Any, run: Any, *arguments: Any) -> Any:
        before = torch.get_rng_state()
        found = original(self, run, *arguments)
        if found[0] is not run:
            states.append((before, torch.get_rng_state()))
        return found

    monkeypatch.setattr(shard.Shard, "_without_ended", watched)
    config = make("kfac", optimizers={"kfac": {"space": {"batch_size": {"choice": [100]}}}})
    tune(Case(config, "epochs", "diabetes", "kfac"), (0, 1), tmp_path / "0.nc")
    assert states
    assert all(torch.equal(before, after) for before, after in states)
