"""Run files, cubes and the study's file."""

import json
import re
import subprocess
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import adamqlr
from adamqlr.errors import UserError
from adamqlr.files import Kind, read_netcdf
from adamqlr.results import attributes as attributes_module
from adamqlr.results.attributes import file_attributes
from adamqlr.results.cube import build_cube, write_cube
from adamqlr.results.join import write_study
from adamqlr.results.runs import read_runs, runs_dataset, write_runs
from adamqlr.results.statistics import Resampling, median_over_seeds, survived_fraction
from adamqlr.results.study import Study
from adamqlr.results.study_file import load_results, open_study, study_config
from adamqlr.stages.aggregate import aggregate
from adamqlr.stages.info import describe
from adamqlr.stages.train import train
from adamqlr.study.case import Case
from adamqlr.study.config import StudyConfig, parse_config
from adamqlr.tables import what_was_run
from adamqlr.training.history import History
from adamqlr.training.metrics import METRICS
from tests.results.histories import history, random_history

INF = float("inf")


def attributes(
    study: StudyConfig,
    seeds: list[int],
    suite: str = "epochs",
    dataset: str = "digits",
    optimizer: str = "adam",
    **labels: str,
) -> dict[str, Any]:
    case = Case(study, suite, dataset, optimizer)
    return file_attributes(case, seeds=seeds, hyperparameters={"lr": 0.1}, device="a CPU", **labels)


def dataset_of(study: StudyConfig, *histories: History, **changes: Any) -> xr.Dataset:
    return runs_dataset(histories, attributes(study, [h.seed for h in histories], **changes))


def test_run_files_round_trip_with_ragged_runs(study: StudyConfig, tmp_path: Path) -> None:
    histories = [history(3, [0, 1, 2], [0, 1, 2], [5, 4, 3]), history(1, [0, 1], [0, 3], [6, INF], diverged=True)]
    write_runs(tmp_path / "runs.nc", histories, attributes(study, [3, 1]))
    runs = read_runs(tmp_path / "runs.nc")
    assert runs["value"].dims == ("seed", "record", "metric")
    assert runs["seed"].values.tolist() == [3, 1]
    assert runs["value"].sel(seed=3, metric="train_loss").values.tolist() == [5, 4, 3]
    assert runs["diverged"].values.tolist() == [False, True]
    assert runs["records"].values.tolist() == [3, 2]
    assert runs["step"].sel(seed=1).values.tolist() == [0, 1, -1]
    assert np.isnan(runs["time"].sel(seed=1).values[-1])
    assert list(runs["metric"].values) == list(METRICS)


def test_everything_says_what_it_is_and_where_it_comes_from(study: StudyConfig, tmp_path: Path) -> None:
    write_runs(tmp_path / "runs.nc", [random_history(0, 9)], attributes(study, [0]))
    aggregate([tmp_path / "runs.nc"], tmp_path / "cube.nc", 10)
    aggregate([tmp_path / "cube.nc"], tmp_path / "study.nc", 10)
    tree = load_results(tmp_path / "study.nc")
    leaf = tree["epochs/digits/adam"].to_dataset()
    xr.testing.assert_identical(leaf, read_netcdf(tmp_path / "cube.nc", Kind.CUBE))
    for dataset in (read_runs(tmp_path / "runs.nc"), read_netcdf(tmp_path / "cube.nc", Kind.CUBE), leaf):
        for name, variable in dataset.variables.items():
            assert {"units", "long_name"} <= set(variable.attrs), name
        assert {"config", "seeds", "git_revision", "versions", "device", "search_space_hash"} <= set(dataset.attrs)
        assert json.loads(dataset.attrs["versions"])["torch"].startswith("2.")
        assert "small" in dataset.attrs["config"]
    xr.testing.assert_identical(adamqlr.load_results(tmp_path)["epochs/digits/adam"].to_dataset(), leaf)
    xr.testing.assert_identical(adamqlr.load_results(tmp_path / "study.nc")["epochs/digits/adam"].to_dataset(), leaf)


def test_last_values_are_held_between_records_and_after_the_end(study: StudyConfig) -> None:
    runs = dataset_of(study, history(0, [0, 1, 4], [0, 1, 4], [9, 8, 7]), history(1, [0, 1, 2], [0, 2, 3], [6, 5, 4]))
    cube = build_cube([runs], 50)
    assert cube["time"].values[[0, -1]].tolist() == [1, 4]
    for seed, times, losses in ((0, [0, 1, 4], [9, 8, 7]), (1, [0, 2, 3], [6, 5, 4])):
        for t, value in zip(cube["time"].values, cube["value"].sel(seed=seed, metric="train_loss").values, strict=True):
            assert value == losses[max(i for i, recorded in enumerate(times) if recorded <= t)]
    by_step = cube["value_by_step"].sel(metric="train_loss")
    assert cube["step"].values.tolist() == [0, 1, 2, 4]
    assert by_step.sel(seed=0).values.tolist() == [9, 8, 8, 7]
    assert by_step.sel(seed=1).values.tolist() == [6, 5, 4, 4]
    assert cube["step_at_time"].sel(seed=1).values[[0, -1]].tolist() == [0, 2]


def test_a_diverged_run_is_the_worst_from_then_on(study: StudyConfig) -> None:
    made = history(0, [0, 1, 2], [0, 1, 2], [3, 2, 1], diverged=True)
    made.values[0][list(METRICS).index("test_accuracy")] = 0.9
    cube = build_cube([dataset_of(study, made, history(1, [0, 1, 2], [0, 2, 4], [3, 2, 1]))], 30)
    after = cube.sel(seed=0, time=slice(2, None))["value"]
    assert (after.sel(metric="train_loss") == INF).all()
    assert (after.sel(metric="test_accuracy") == -INF).all()
    assert np.isnan(after.sel(metric="lr")).all()
    assert np.isnan(after.sel(metric="train_accuracy")).all(), "a metric that the run never had stays undefined"
    before = cube.sel(seed=0, time=slice(None, 1.99))["value"].sel(metric="train_loss")
    assert np.isfinite(before).all()
    assert cube["value_by_step"].sel(seed=0, metric="train_loss").values.tolist() == [3, 2, INF]
    assert cube["diverged_step"].values.tolist() == [2, -1]
    assert cube["diverged_time"].values[0] == 2


def test_medians_of_ragged_and_diverged_runs_by_hand(study: StudyConfig) -> None:
    """One run goes to the end, one ends early, one diverges at step 2; medians at each step can be read off."""
    runs = dataset_of(
        study,
        history(0, [0, 1, 2, 3], [0, 1, 2, 3], [9, 5, 3, 1]),
        history(1, [0, 1], [0, 1], [9, 4]),
        history(2, [0, 1, 2], [0, 1, 2], [9, 1, 7], diverged=True),
    )
    cube = build_cube([runs], 50)
    loss = cube["value_by_step"].sel(metric="train_loss")
    assert loss.values.tolist() == [[9, 5, 3, 1], [9, 4, 4, 4], [9, 1, INF, INF]]
    summary = median_over_seeds(loss, Resampling(500, 0))
    assert summary["median"].values.tolist() == [9, 4, 4, 4]
    assert summary["lower"].values.tolist() == [9, 1, 3, 1]
    assert summary["upper"].values.tolist() == [9, 5, INF, INF]
    at_end = cube["value"].sel(metric="train_loss").isel(time=-1)
    assert at_end.values.tolist() == [1, 4, INF]
    assert survived_fraction(cube) == pytest.approx(2 / 3)


@pytest.mark.parametrize("step", [1, 4, 9])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_run_that_diverges_never_improves_a_median(study: StudyConfig, count: int, step: int) -> None:
    """The same runs, but that one of them ends at some step as diverged: no loss is lower, no accuracy higher."""
    for seed in range(0, 100, 10):
        healthy = [random_history(seed + number, 10) for number in range(count)]
        for made in healthy:
            made.times = [0.01 * record for record in range(10)]
        until, first = step + 1, healthy[0]
        ended = History(seed, first.steps[:until], first.times[:until], first.values[:until], diverged=True)
        cubes = [build_cube([dataset_of(study, run, *healthy[1:])], 40) for run in (first, ended)]
        for variable in ("value", "value_by_step"):
            before, after = (median_over_seeds(cube[variable], Resampling(2, 0))["median"] for cube in cubes)
            for metric, sign in (("test_loss", 1), ("train_loss", 1), ("test_accuracy", -1)):
                good, bad = (sign * medians.sel(metric=metric).values for medians in (before, after))
                assert not (bad < good).any(), (variable, metric)


def test_a_loss_that_is_no_number_is_infinite(study: StudyConfig) -> None:
    """Whole-set losses of parameters that have just blown up, at a step that only the next one would call diverged."""
    made = history(0, [0, 1, 2], [0, 1, 2], [3, 2, 1])
    made.values[2][list(METRICS).index("test_loss")] = float("nan")
    made.values[0][list(METRICS).index("train_loss")] = float("nan")
    cube = build_cube([dataset_of(study, made, history(1, [0, 1, 2], [0, 1, 2], [5, 5, 5]))], 10)
    assert cube["value_by_step"].sel(seed=0, metric="test_loss").values.tolist() == [4, 3, INF]
    assert np.isnan(cube["value_by_step"].sel(seed=0, metric="train_loss").values[0]), "before the first minibatch"
    assert np.isnan(cube["value_by_step"].sel(seed=0, metric="damping")).all(), "a metric that it never had"
    assert not cube["diverged"].any()


def test_cubes_refuse_what_does_not_belong_together(study: StudyConfig, tmp_path: Path) -> None:
    first = dataset_of(study, random_history(0, 5))
    with pytest.raises(UserError, match="digits/adam: seed 0 appears in two run files"):
        build_cube([first, dataset_of(study, random_history(0, 6))], 10)
    with pytest.raises(UserError, match="differ in 'optimizer'"):
        build_cube([first, dataset_of(study, random_history(1, 5), optimizer="sgd_full")], 10)
    with pytest.raises(UserError, match="differ in 'hyperparameters'"):
        build_cube([first, dataset_of(study, random_history(1, 5)).assign_attrs(hyperparameters='{"lr": 0.2}')], 10)
    joined = build_cube([dataset_of(study, random_history(5, 5)), first], 10)
    assert joined["seed"].values.tolist() == [0, 5]
    assert json.loads(joined.attrs["seeds"]) == [0, 5]
    jobs = [
        dataset_of(study, random_history(seed, 5)).assign_attrs(
            slurm_job=str(seed), device=device, runs_sharing_device=3
        )
        for seed, device in ((0, "A"), (1, "B"), (2, "A"))
    ]
    each = build_cube(jobs, 10).attrs
    assert (each["slurm_job"], each["device"], each["runs_sharing_device"]) == ("0, 1, 2", "A, B", "3")
    write_cube(tmp_path / "a.nc", joined)
    with pytest.raises(UserError, match="a second file of epochs/digits/adam"):
        write_study([tmp_path / "a.nc", tmp_path / "a.nc"], tmp_path / "study.nc")
    write_cube(tmp_path / "b.nc", joined.assign_attrs(study="another", optimizer="b"))
    with pytest.raises(UserError, match="belongs to the study 'another', not 'small'"):
        write_study([tmp_path / "a.nc", tmp_path / "b.nc"], tmp_path / "study.nc")
    write_runs(tmp_path / "runs.nc", [random_history(0, 5)], attributes(study, [0]))
    with pytest.raises(UserError, match="expected either run files, or cubes and trials"):
        aggregate([tmp_path / "a.nc", tmp_path / "runs.nc"], tmp_path / "out.nc", 10)
    with pytest.raises(UserError, match=r"runs\.nc: expected cube, found runs"):
        read_netcdf(tmp_path / "runs.nc", Kind.CUBE)


def test_runs_of_other_settings_are_not_joined(settings: dict[str, Any], tmp_path: Path) -> None:
    def trained(name: str, seed: int, **own: Any) -> Path:
        config = parse_config({**settings, "datasets": {"digits": {"epochs": 1, **own}}}, "test")
        train(Case(config, "epochs", "digits", "adam_untuned"), [seed], {}, path := tmp_path / f"{name}.nc")
        return path

    one, other, deeper = trained("one", 0), trained("other", 1), trained("deeper", 1, hidden=[7])
    labeled = trained("labeled", 2, label="Numbers", runs_per_gpu=2, seeds=9)
    aggregate([one, other, labeled], tmp_path / "cube.nc", 10)
    assert read_netcdf(tmp_path / "cube.nc", Kind.CUBE)["seed"].values.tolist() == [0, 1, 2]
    problem = r"digits/adam_untuned: .*: seeds \[0\] and \[1\] differ in 'training_fingerprint', what decides"
    with pytest.raises(UserError, match=problem):
        aggregate([one, deeper], tmp_path / "cube.nc", 10)
    # Earlier files do not say it, be they the first ones.
    earlier = read_runs(labeled)
    del earlier.attrs["training_fingerprint"]
    assert build_cube([earlier, read_runs(other)], 10)["seed"].values.tolist() == [1, 2]
    with pytest.raises(UserError, match=problem):
        build_cube([earlier, read_runs(one), read_runs(deeper)], 10)


def test_neither_names_nor_the_order_of_options_keep_runs_apart(study: StudyConfig) -> None:
    first, second = (
        dataset_of(study, random_history(seed, 5)).assign_attrs(
            optimizer_label=label, dataset_label=label, hyperparameters=options
        )
        for seed, label, options in ((0, "Old", '{"lr": 0.1, "eps": 1}'), (1, "New", '{"eps": 1, "lr": 0.1}'))
    )
    assert build_cube([first, second], 10)["seed"].values.tolist() == [0, 1]


def test_versions_and_revisions_of_all_jobs_are_named(study: StudyConfig) -> None:
    runs = [
        dataset_of(study, random_history(seed, 5)).assign_attrs(
            git_revision=revision, runs_sharing_device=1, versions=json.dumps({"torch": version, "numpy": "2.1"})
        )
        for seed, revision, version in ((0, "a" * 40, "2.10"), (1, "b" * 40 + "-dirty", "2.11"), (2, "a" * 40, "2.11"))
    ]
    cube = build_cube(runs, 10)
    assert json.loads(cube.attrs["versions"]) == {"torch": "2.10, 2.11", "numpy": "2.1"}
    shown = what_was_run.tabulate(Study(xr.DataTree.from_dict({"/epochs/digits/adam": cube}), study), "epochs").shown
    assert shown["Revision"].tolist() == ["aaaaaaaaaaaa, bbbbbbbbbbbb-dirty"]
    assert shown["PyTorch"].tolist() == ["2.10, 2.11"]


def test_the_revision_is_of_the_packages_own_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed below somebody's checkout is no part of it."""
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "mine"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    module = tmp_path / "attributes.py"
    module.touch()
    monkeypatch.setattr(attributes_module, "__file__", str(module))
    assert attributes_module.git_revision() == "unknown"
    subprocess.run(["git", "add", module.name], cwd=tmp_path, check=True)
    assert re.fullmatch("[0-9a-f]{40}-dirty", attributes_module.git_revision())


def test_cubes_are_called_what_the_configuration_in_force_calls_them(
    study: StudyConfig, settings: dict[str, Any], tmp_path: Path
) -> None:
    write_cube(tmp_path / "a.nc", build_cube([dataset_of(study, random_history(0, 5))], 10))
    write_study([tmp_path / "a.nc"], tmp_path / "study.nc")
    named = {"optimizers": {"adam": {"label": "Mine", "family": "Own"}}, "datasets": {"digits": {"label": "Numbers"}}}
    config = parse_config({**settings, **named}, "test")
    with open_study(tmp_path / "study.nc", config=config) as tree:
        (pair,) = Study(tree, config).pairs("epochs")
        assert (pair.optimizer_label, pair.dataset_label) == ("Mine", "Numbers")
        assert (pair.spec.label, pair.spec.family) == ("Mine", "Own")
    without = parse_config({**settings, "optimizers": ["sgd_full"], "datasets": ["diabetes"]}, "test")
    with open_study(tmp_path / "study.nc", config=without) as tree:
        (pair,) = Study(tree, without).pairs("epochs")
        assert (pair.optimizer_label, pair.dataset_label) == ("Adam", "Digits")


def test_a_studys_file_keeps_the_configuration_in_force(study: StudyConfig, tmp_path: Path) -> None:
    later = study.model_copy(update={"seed": 7})
    for config, seed in ((None, 0), (later, 7)):
        write_cube(tmp_path / "a.nc", build_cube([dataset_of(study, random_history(0, 5))], 10))
        write_study([tmp_path / "a.nc"], tmp_path / "study.nc", config)
        assert study_config(tmp_path / "study.nc").seed == seed


def test_parts_of_a_study_are_read_when_they_are_used(study: StudyConfig, tmp_path: Path) -> None:
    study = study.model_copy(update={"suites": {**study.suites, "other": study.suite("epochs")}})
    for name, changes in (("a", {}), ("b", {"suite": "other"}), ("c", {"sweep": "lr", "sweep_point": "0.5"})):
        write_cube(tmp_path / f"{name}.nc", build_cube([dataset_of(study, random_history(0, 5), **changes)], 10))
    write_study([tmp_path / f"{name}.nc" for name in "abc"], tmp_path / "study.nc")
    with open_study(tmp_path / "study.nc", "other") as opened:
        assert list(opened.children) == ["other"]
        assert not opened["other/digits/adam"]["value"].variable._in_memory
    assert load_results(tmp_path / "study.nc")["sensitivity/lr/0.5"].to_dataset()["seed"].values.tolist() == [0]
    with (
        pytest.raises(UserError, match="no 'epoch' in this study, which has epochs, other, sensitivity"),
        open_study(tmp_path / "study.nc", "epoch"),
    ):
        pass


def test_descriptions_name_what_a_file_holds(study: StudyConfig, tmp_path: Path) -> None:
    write_runs(tmp_path / "runs.nc", [random_history(0, 9)], attributes(study, [0]))
    aggregate([tmp_path / "runs.nc"], tmp_path / "cube.nc", 10)
    aggregate([tmp_path / "cube.nc"], tmp_path / "study.nc", 10)
    text = describe(tmp_path / "cube.nc")
    assert text.splitlines()[0].endswith(": cube")
    assert "value(seed: 1, time: 10, metric: 17)" in text
    assert "optimizer: adam" in text
    assert "/epochs/digits/adam: 1 seeds, 9 recorded steps, 0 diverged" in describe(tmp_path / "study.nc")


def test_a_full_size_cube_takes_seconds_and_little_memory(study: StudyConfig) -> None:
    generator = np.random.default_rng(0)
    histories = []
    for seed in range(50):
        values = generator.random((4000, len(METRICS)))
        times = np.sort(generator.uniform(0, 900, 4000))
        histories.append(History(seed, list(range(4000)), times.tolist(), values.tolist()))
    runs = dataset_of(study, *histories)
    tracemalloc.start()
    start = time.process_time()
    cube = build_cube([runs], 200)
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 3
    # The cube is as large as the runs, and each seed's part of it is there until they are joined.
    assert peak < 4 * runs.nbytes
    assert cube["value_by_step"].shape == (50, 4000, len(METRICS))


def test_trajectories_are_kept(study: StudyConfig) -> None:
    made = History(0)
    for step in range(3):
        made.append(step, float(step), {"train_loss": 1.0}, [float(step), 2.0 * step])
    cube = build_cube([dataset_of(study, made, dataset="rosenbrock")], 5)
    assert cube["parameters"].sel(seed=0, parameter="y").values.tolist() == [0, 2, 4]


def test_a_cube_says_when_and_where_all_of_its_jobs_ran(study: StudyConfig) -> None:
    runs = [
        dataset_of(study, random_history(seed, 5)).assign_attrs(created=created, device=device)
        for seed, created, device in (
            (0, "2026-01-05T10:00:00+00:00", "A100"),
            (1, "2026-06-05T10:00:00+00:00", "A100, H100"),
        )
    ]
    cube = build_cube(runs, 10)
    assert cube.attrs["created"] == "2026-01-05T10:00:00+00:00, 2026-06-05T10:00:00+00:00"
    assert cube.attrs["device"] == "A100, H100"


def test_seeds_of_different_splits_are_not_joined(
    study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose order of rows was put beside the table in between."""
    monkeypatch.setenv("ADAMQLR_DATA_DIR", str(tmp_path))
    config = parse_config({"name": "t", "datasets": ["uci_energy"], "optimizers": ["adam_untuned"]}, "t")
    runs = []
    for seed in range(2):
        case = Case(config, "epochs", "uci_energy", "adam_untuned")
        attrs = file_attributes(case, seeds=[seed], hyperparameters={}, device="a CPU")
        runs.append(dataset_of(study, random_history(seed, 5)).assign_attrs(attrs))
        (tmp_path / "uci_energy").mkdir(exist_ok=True)
        (tmp_path / "uci_energy" / "permutation_indices.txt").write_text("1\n0\n")
    assert runs[0].attrs["split"] == "drawn"
    with pytest.raises(UserError, match="differ in 'split'"):
        build_cube(runs, 10)
    del runs[0].attrs["split"]
    assert build_cube(runs, 10).sizes["seed"] == 2
