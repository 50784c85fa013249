"""Seeds side by side in one process: the curves of separate runs, and what their files say of time."""

import copy
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from adamqlr.jobs.checkpoint import Checkpoint
from adamqlr.jobs.interrupts import Interrupted, StopRequest
from adamqlr.optim.passes.perceptron import PerceptronPack
from adamqlr.problems.problem import load_problem
from adamqlr.results.cube import build_cube
from adamqlr.results.runs import read_runs
from adamqlr.stages.train import train
from adamqlr.study.case import Case
from adamqlr.study.config import StudyConfig, load_config, parse_config
from adamqlr.study.limit import Limit
from adamqlr.study.optimizers import OPTIMIZERS as CATALOGUE
from adamqlr.training.evaluation import evaluate
from adamqlr.training.metrics import METRICS
from adamqlr.training.narrowing import state_of
from adamqlr.training.run import Run, RunSpec
from adamqlr.training.schedule import RecordSchedule
from adamqlr.training.seeds import SeedsJob, train_seeds
from adamqlr.training.side_by_side import pack_size

ConfigFile = Callable[..., Path]
CPU = torch.device("cpu")
SCHEDULE = RecordSchedule(4, 1.5)
SEEDS = (5, 0, 2)
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd_full": {"lr": 0.05, "momentum": 0.9},
    "adam": {"lr": 0.01},
    "baydin_sgd": {"lr": 0.01, "hypergradient_lr": 1e-4},
    "adamqlr": {"damping": 0.01, "lr_clipping": 0.1},
    "adamqlr_hessian": {"damping": 0.3, "lr_clipping": 0.1},
    # Sampled targets would be others than those of the runs alone.
    "kfac": {"damping": 1.0, "fisher": "exact"},
    "kfac_unadaptive": {"damping": 0.1, "lr": 0.05, "momentum": 0.9, "fisher": "exact"},
}


def specs(optimizer: str, **options: Any) -> list[RunSpec]:
    return [RunSpec(CATALOGUE[optimizer], {"batch_size": 200, **options}, seed) for seed in SEEDS]


@pytest.mark.parametrize("dataset", ["digits", "diabetes"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_curves_are_those_of_separate_runs(study: StudyConfig, dataset: str, optimizer: str) -> None:
    problem = load_problem(dataset, study, CPU)
    runs = specs(optimizer, **OPTIMIZERS[optimizer])
    pack = Run(problem, runs, SCHEDULE, step_seconds=0.5)
    pack.advance(Limit(steps=20))
    for spec, history in zip(runs, pack.histories, strict=True):
        alone = Run(problem, spec, SCHEDULE)
        alone.advance(Limit(steps=20))
        assert (history.seed, history.steps) == (alone.history.seed, alone.history.steps)
        assert history.times == [0.5 * step for step in history.steps]
        # Single precision; ρ is a quotient of two small differences.
        for name in METRICS:
            tolerance = 2e-2 if name == "rho" else 2e-3
            np.testing.assert_allclose(
                history.metric(name), alone.history.metric(name), rtol=tolerance, atol=1e-5, err_msg=name
            )


def test_a_pack_in_pieces_through_saved_states_is_the_whole_pack(study: StudyConfig) -> None:
    problem = load_problem("digits", study, CPU)
    whole = Run(problem, specs("adamqlr"), SCHEDULE, step_seconds=0.1)
    whole.advance(Limit(steps=18))
    part = Run(problem, specs("adamqlr"), SCHEDULE, step_seconds=0.1)
    part.advance(Limit(steps=9))
    state = copy.deepcopy(part.state_dict())
    again = Run(problem, specs("adamqlr"), SCHEDULE, step_seconds=0.1)
    again.load_state_dict(state)
    again.advance(Limit(steps=18))
    for history, wanted in zip(again.histories, whole.histories, strict=True):
        assert history.steps == wanted.steps
        np.testing.assert_array_equal(history.values, wanted.values)


def test_a_pack_that_was_stopped_goes_on_as_it_was_where_packs_are_smaller_now(
    study: StudyConfig, tmp_path: Path
) -> None:
    case, problem = Case(study, "epochs", "digits", "adamqlr_untuned"), load_problem("digits", study, CPU)
    job, stop = SeedsJob(case, case.hyperparameters({}), range(5)), StopRequest()
    whole = train_seeds(job, problem, Checkpoint(tmp_path / "whole.nc", "job"), stop, side_by_side=3)
    stop.signum = signal.SIGTERM
    with pytest.raises(Interrupted):
        train_seeds(job, problem, Checkpoint(tmp_path / "stopped.nc", "job"), stop, side_by_side=3)
    stop.signum = None
    resumed = train_seeds(job, problem, Checkpoint(tmp_path / "stopped.nc", "job"), stop, side_by_side=2)
    for history, wanted in zip(resumed.histories, whole.histories, strict=True):
        assert (history.seed, history.steps) == (wanted.seed, wanted.steps)
        np.testing.assert_array_equal(history.metric("test_loss"), wanted.metric("test_loss"))


@pytest.mark.parametrize("members", [(2,), (0, 2)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_runs_go_on_without_those_that_are_left_out(
    study: StudyConfig, optimizer: str, members: tuple[int, ...]
) -> None:
    problem, options = load_problem("digits", study, CPU), OPTIMIZERS[optimizer]
    # What differs between runs has to follow them.
    name = "lr" if "lr" in options else "damping"
    runs = [
        RunSpec(spec.optimizer, {**spec.hyperparameters, name: options[name] * factor}, spec.seed)
        for spec, factor in zip(specs(optimizer, **options), (1.0, 0.5, 0.25), strict=True)
    ]
    whole = Run(problem, runs, SCHEDULE, step_seconds=0.5)
    whole.advance(Limit(steps=9))
    left = [runs[member] for member in members]
    others = Run(problem, left if len(left) > 1 else left[0], SCHEDULE, step_seconds=0.5)
    others.load_state_dict(state_of(copy.deepcopy(whole.state_dict()), members, others.state_dict()))
    assert others.seconds == whole.seconds
    for run in (whole, others):
        run.advance(Limit(steps=20))
    for history, member in zip(others.histories, members, strict=True):
        wanted = whole.histories[member]
        assert (history.seed, history.steps, history.times) == (wanted.seed, wanted.steps, wanted.times)
        for metric in METRICS:
            tolerance = 2e-2 if metric == "rho" else 2e-3
            found = history.metric(metric)
            np.testing.assert_allclose(found, wanted.metric(metric), rtol=tolerance, atol=1e-5, err_msg=metric)


def test_runs_that_diverge_end_and_the_others_go_on(study: StudyConfig) -> None:
    problem = load_problem("diabetes", study, CPU)
    pack = Run(problem, specs("sgd_full", lr=0.01), SCHEDULE, step_seconds=0.1)
    next(iter(pack._model.parameters())).data[1].fill_(float("inf"))
    pack.advance(Limit(steps=12))
    lengths = [len(history.steps) for history in pack.histories]
    assert [history.diverged for history in pack.histories] == [False, True, False]
    assert lengths[1] == 2
    assert lengths[0] == lengths[2] > 2

    doomed = Run(problem, specs("sgd_full", lr=1e6), SCHEDULE, step_seconds=0.1)
    doomed.advance(Limit(steps=10_000))
    assert doomed.diverged
    assert doomed.step < 10_000


def config_of_mode(config_file: ConfigFile, mode: str) -> StudyConfig:
    return load_config(config_file(training={"seeds": 5, "pack": mode}))


def test_files_of_packed_seeds_say_where_their_time_is_from(config_file: ConfigFile, tmp_path: Path) -> None:
    for mode in ("always", "never"):
        train(
            Case(config_of_mode(config_file, mode), "epochs", "digits", "adamqlr_untuned"),
            [4, 0, 2],
            {},
            tmp_path / f"{mode}.nc",
        )
    packed, alone = (xr.load_dataset(tmp_path / f"{mode}.nc") for mode in ("always", "never"))
    assert packed["seed"].values.tolist() == [4, 0, 2]
    assert (packed.attrs["packed_seeds"], alone.attrs["packed_seeds"]) == (3, 1)
    assert alone.attrs["time_source"] == "measured"
    assert packed.attrs["time_source"].startswith("steps taken times step_seconds")
    np.testing.assert_allclose(packed["time"], packed["step"] * packed.attrs["step_seconds"])
    np.testing.assert_allclose(packed["value"][..., 0], alone["value"][..., 0], rtol=1e-3)
    assert not list(tmp_path.glob(".*"))

    # Each job measures its own step, where it needs one.
    for mode, seed in (("always", 6), ("never", 8)):
        case = Case(config_of_mode(config_file, mode), "epochs", "digits", "adamqlr_untuned")
        train(case, [seed, seed + 1], {}, tmp_path / f"{seed}.nc")
    for names in (["always", "6", "8"], ["8", "6", "always"]):
        cube = build_cube([read_runs(tmp_path / f"{name}.nc") for name in names], grid_points=10)
        assert cube["seed"].values.tolist() == [0, 2, 4, 6, 7, 8, 9]
        assert len(cube.attrs["step_seconds"].split(", ")) == 2


def test_what_may_be_packed(settings: dict[str, Any]) -> None:
    def may(suite: str = "epochs", optimizer: str = "adam", dataset: str = "digits", **training: Any) -> bool:
        changed = {**settings, "suites": ["epochs", "runtime_train"], "training": {"seeds": 2, **training}}
        return Case(parse_config(changed, "test"), suite, dataset, optimizer).can_pack

    assert may()
    assert may(optimizer="kfac_untuned")
    assert not may(pack="never")
    assert not may(suite="runtime_train")
    assert not may(dataset="rosenbrock")


def test_what_is_packed_on_a_cpu_stays_in_cache(settings: dict[str, Any]) -> None:
    def size(runs: int = 10, batch_size: int = 100, steps: float = 1e6, pack: str = "auto", **dataset: Any) -> int:
        changed = {**settings, "datasets": {"digits": dataset}, "training": {"pack": pack}}
        case = Case(parse_config(changed, "test"), "epochs", "digits", "adam")
        return pack_size(case, load_problem("digits", case.study, CPU), batch_size, runs, steps)

    assert size() == 10
    assert size(runs=200) < 64
    # Batches whose activations alone fill the cache, networks that do, and jobs too short to measure a step for.
    assert size(batch_size=1258) == 0
    assert size(hidden=[2000]) == 0
    assert size(steps=1000) == 0
    assert size(runs=2) == size(runs=1) == 0
    assert size(pack="never") == 0
    assert size(pack="always", batch_size=1258, steps=10, runs=100) == 64


def test_seeds_of_a_long_job_are_packed_by_default(settings: dict[str, Any], tmp_path: Path) -> None:
    changed = {**settings, "datasets": {"diabetes": {"epochs": 2200}}}
    case = Case(parse_config(changed, "test"), "epochs", "diabetes", "adam_untuned")
    train(case, range(3), {}, tmp_path / "runs.nc")
    runs = xr.load_dataset(tmp_path / "runs.nc")
    assert runs.attrs["packed_seeds"] == 3
    assert runs["step"].max() == 2200 * 4


def test_an_evaluation_is_charged_as_one_run_pays_for_it(study: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that of all of them takes."""

    def slowly(model: Any, *arguments: Any) -> Any:
        time.sleep(0.2 if isinstance(model, PerceptronPack) else 0.01)
        return evaluate(model, *arguments)

    monkeypatch.setattr("adamqlr.training.evaluation.evaluate", slowly)
    pack = Run(load_problem("diabetes", study, CPU), specs("adam", lr=0.01), SCHEDULE, step_seconds=0.5)
    pack.advance(Limit(steps=4))
    # Of the validation and test sets, which take all of them together at least 0.4 s.
    assert all(0.02 <= history.evaluation_seconds < 0.4 for history in pack.histories)
