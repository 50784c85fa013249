"""Figures and tables from made-up cubes: what they show, and that equal input gives equal files."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from adamqlr.config import StudyConfig, parse_config
from adamqlr.errors import UserError
from adamqlr.figures.catalog import FIGURES, TABLES
from adamqlr.figures.evolution import performance
from adamqlr.figures.render import render, render_table
from adamqlr.figures.style import line_style
from adamqlr.figures.tables import best_hyperparameters, final_results
from adamqlr.optim.registry import OPTIMIZERS
from adamqlr.results.cube import build_cube, write_cube
from adamqlr.results.provenance import provenance
from adamqlr.results.runs import runs_dataset
from adamqlr.results.statistics import Resampling
from adamqlr.results.study import load_study, write_study
from adamqlr.training.history import History

_spec = spec_from_file_location("histories", Path(__file__).parents[1] / "results" / "histories.py")
_module = module_from_spec(_spec)
_spec.loader.exec_module(_module)

RESAMPLING = Resampling(20, 0)
SEEDS = 4


def made_up(dataset: str, optimizer: str, number: int) -> list[History]:
    histories = [_module.random_history(100 * number + seed, 30, dataset == "digits") for seed in range(SEEDS)]
    if dataset == "rosenbrock":
        for history in histories:
            history.parameters = [[1 - 0.01 * k, -1 + 0.02 * k] for k in range(30)]
    if optimizer == "baydin_sgd":
        for history in histories[: SEEDS - 1]:
            history.diverged = True
    return histories


@pytest.fixture(scope="module")
def config() -> StudyConfig:
    return parse_config(
        {"name": "made-up", "datasets": ["digits", "diabetes", "rosenbrock"], "optimizers": list(OPTIMIZERS)}, "test"
    )


@pytest.fixture(scope="module")
def study_file(config: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, cubes = tmp_path_factory.mktemp("study"), []
    for number, (dataset, optimizer) in enumerate(config.pairs("epochs")):
        attrs = provenance(
            config,
            suite="epochs",
            dataset=dataset,
            optimizer=optimizer,
            seeds=list(range(SEEDS)),
            hyperparameters={"batch_size": 100, "lr": 0.01234567},
            device="a CPU",
        )
        cubes.append(folder / f"{dataset}_{optimizer}.nc")
        write_cube(cubes[-1], build_cube([runs_dataset(made_up(dataset, optimizer, number), attrs)], 40))
    write_study(cubes, folder / "study.nc")
    return folder / "study.nc"


@pytest.fixture(scope="module")
def study_tree(study_file: Path) -> xr.DataTree:
    return load_study(study_file)


@pytest.mark.parametrize("family", FIGURES)
def test_figures_come_with_their_numbers_and_are_reproducible(family: str, study_file: Path, tmp_path: Path) -> None:
    for attempt in ("one", "two"):
        render(family, study_file, "epochs", RESAMPLING, tmp_path / attempt)
    for suffix in ("pdf", "png", "csv"):
        first, second = (tmp_path / f"{attempt}.{suffix}" for attempt in ("one", "two"))
        assert first.stat().st_size > 1000
        assert first.read_bytes() == second.read_bytes()
    shown = set(OPTIMIZERS)
    if family == "trajectories":
        shown = {key for key, spec in OPTIMIZERS.items() if not spec.layers_only}
    assert set(pd.read_csv(tmp_path / "one.csv")["optimizer"]) == shown


def test_performance_is_accuracy_for_classes_and_loss_for_real_targets(study_tree: xr.DataTree) -> None:
    figure, numbers = performance(study_tree, "epochs", RESAMPLING)
    shown = numbers.groupby("dataset")["metric"].unique().map(set).to_dict()
    assert shown == {"digits": {"train_accuracy", "test_accuracy"}, "diabetes": {"train_loss", "test_loss"}}
    labels = {axes.get_ylabel() for axes in figure.axes}
    assert labels == {"Training accuracy", "Test accuracy", "Training loss", "Test loss"}
    titles = [child.get_text() for axes in figure.axes for child in axes.texts]
    assert any("Baydin SGD 3/4" in title for title in titles)
    cube = study_tree["epochs/diabetes/adam"].to_dataset()
    drawn = numbers[(numbers.dataset == "diabetes") & (numbers.optimizer == "adam") & (numbers.metric == "test_loss")]
    np.testing.assert_allclose(drawn["median"], cube["value"].sel(metric="test_loss").median("seed"))


def test_every_optimizer_has_a_color_of_its_own() -> None:
    colors = [line_style(key)["color"] for key in OPTIMIZERS]
    assert len(set(colors)) == len(OPTIMIZERS)


@pytest.mark.parametrize("name", TABLES)
def test_tables_come_in_four_formats(name: str, study_file: Path, tmp_path: Path) -> None:
    render_table(name, study_file, "epochs", RESAMPLING, tmp_path / name)
    texts = {suffix: (tmp_path / f"{name}.{suffix}").read_text() for suffix in ("csv", "md", "tex", "html")}
    assert texts["md"].startswith("|")
    assert r"\toprule" in texts["tex"]
    assert "<table" in texts["html"]
    assert not set("±ε–…−") & set(texts["tex"]), "LaTeX without Unicode input"
    assert "Adam" in texts["md"]


def test_final_results_mark_the_best_and_show_divergence(study_tree: xr.DataTree) -> None:
    table = final_results(study_tree, "epochs", RESAMPLING)
    numbers = table.numbers.set_index(["dataset", "optimizer"])
    cube = study_tree["epochs/digits/adam"].to_dataset()
    last = cube["value"].isel(time=-1)
    gap = (last.sel(metric="test_loss") - last.sel(metric="train_loss")).median()
    assert numbers.loc[("digits", "adam"), "generalization_gap"] == pytest.approx(float(gap))
    assert numbers.loc[("digits", "adam"), "test_accuracy"] == pytest.approx(
        float(last.sel(metric="test_accuracy").median())
    )
    assert numbers.loc[("digits", "baydin_sgd"), "survived"] == 0.25
    assert np.isinf(numbers.loc[("digits", "baydin_sgd"), "test_loss"])
    shown = table.shown.set_index(["Dataset", "Optimizer"])
    assert shown.loc[("Digits", "Baydin SGD"), "Test loss"] == "diverged"
    assert shown.loc[("Diabetes", "Adam"), "Test accuracy"] == "–"
    digits = numbers.loc["digits"]
    best = table.best[(table.numbers["dataset"] == "digits").values]["Test loss"].values
    assert digits.index[best].tolist() == [digits["test_loss"].idxmin()]


def test_hyperparameters_that_were_not_tuned_are_in_parentheses(study_tree: xr.DataTree) -> None:
    table = best_hyperparameters(study_tree, "epochs", RESAMPLING)
    shown = table.shown.set_index(["Dataset", "Optimizer"])
    assert shown.loc[("Digits", "Adam"), "lr"] == "0.01235"
    assert shown.loc[("Digits", "Adam (Untuned)"), "lr"] == "(0.01235)"
    assert shown.loc[("Rosenbrock", "Adam"), "batch_size"] == "(100)"
    assert shown.loc[("Digits", "Adam"), "momentum"] == "–"


def test_unknown_names_are_refused(study_file: Path, tmp_path: Path) -> None:
    for maker, name, problem in (
        (render, "scatter", "unknown figure 'scatter': known are trajectories"),
        (render_table, "scatter", "unknown table 'scatter': known are final_results"),
    ):
        with pytest.raises(UserError, match=problem):
            maker(name, study_file, "epochs", RESAMPLING, tmp_path / "x")
    with pytest.raises(UserError, match="suite 'runtime': the study's file has epochs"):
        render("loss", study_file, "runtime", RESAMPLING, tmp_path / "x")
    with pytest.raises(UserError, match=r"digits_adam\.nc: expected study, found cube"):
        render("loss", study_file.with_name("digits_adam.nc"), "epochs", RESAMPLING, tmp_path / "x")
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == "[]"
