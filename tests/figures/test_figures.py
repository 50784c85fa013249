"""Figures and tables from made-up cubes: what they show, and that equal input gives equal files."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from adamqlr.errors import UserError
from adamqlr.figures import sensitivity
from adamqlr.figures.contents import figures_of
from adamqlr.figures.evolution import ablation, damping, learning_rate, loss, performance
from adamqlr.figures.lines import line_style
from adamqlr.figures.panels import add_legend
from adamqlr.figures.profiles import cost_ratios
from adamqlr.figures.style import TEXT_WIDTH
from adamqlr.figures.tuning_budget import best_so_far
from adamqlr.results.attributes import file_attributes
from adamqlr.results.cube import build_cube, write_cube
from adamqlr.results.join import write_study
from adamqlr.results.runs import runs_dataset
from adamqlr.results.study import Study, by_dataset
from adamqlr.results.study_file import load_results
from adamqlr.results.targets import target_loss
from adamqlr.stages.figures import draw_figure
from adamqlr.stages.tables import write_table
from adamqlr.study.case import Case, cases_of
from adamqlr.study.config import StudyConfig, parse_config
from adamqlr.study.optimizers import OPTIMIZERS
from adamqlr.tables import divergence, final_results, hyperparameters
from adamqlr.tables.contents import tables_of
from adamqlr.training.history import History
from adamqlr.tuning.trials import Trial, trials_dataset, write_trials
from tests.results.histories import random_history

SEEDS = 4


def made_up(dataset: str, optimizer: str, number: int) -> list[History]:
    histories = [random_history(100 * number + seed, 30, dataset == "digits") for seed in range(SEEDS)]
    for seed, history in enumerate(histories):
        history.seed = seed
    if dataset == "rosenbrock":
        for history in histories:
            history.parameters = [[1 - 0.01 * k, -1 + 0.02 * k] for k in range(30)]
    if optimizer == "baydin_sgd":
        for history in histories[: SEEDS - 1]:
            history.diverged = True
    return histories


STUDY = parse_config(
    {
        "name": "made-up",
        "datasets": ["digits", "diabetes", "rosenbrock"],
        "optimizers": list(OPTIMIZERS),
        "tuning": {"trials": 20},
        "sensitivity": {
            "damping": {"dataset": "digits", "optimizer": "adamqlr", "parameter": "damping", "values": [1e-4, 0.01, 1]}
        },
        "statistics": {"resamples": 20},
    },
    "test",
)


@pytest.fixture(scope="module")
def config() -> StudyConfig:
    return STUDY


def attributes(config: StudyConfig, dataset: str, optimizer: str, **extra: str) -> dict[str, str | int | float]:
    return file_attributes(
        Case(config, "epochs", dataset, optimizer),
        seeds=list(range(SEEDS)),
        hyperparameters={"batch_size": 100, "lr": 0.01234567},
        device="a CPU",
        runs_sharing_device=1,
        **extra,
    )


def made_up_trials(config: StudyConfig, dataset: str, optimizer: str) -> xr.Dataset:
    generator = np.random.default_rng(len(optimizer))
    values = np.exp(generator.normal(size=(20, 3)))
    trials = [
        Trial(number, {"lr": 0.1}, row[: 1 + number % 3].tolist(), "complete" if number % 3 == 2 else "pruned", 1.0)
        for number, row in enumerate(values)
    ]
    attrs = attributes(config, dataset, optimizer, objective="validation_loss", identity="x", trials="20")
    return trials_dataset(trials, [1, 4, 16], "epochs", attrs)


@pytest.fixture(scope="module")
def study_file(config: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, parts = tmp_path_factory.mktemp("study"), []
    for number, case in enumerate(cases_of(config, "epochs")):
        dataset, optimizer = case.dataset, case.optimizer
        attrs = attributes(config, dataset, optimizer)
        parts.append(folder / f"{dataset}_{optimizer}.nc")
        write_cube(parts[-1], build_cube([runs_dataset(made_up(dataset, optimizer, number), attrs)], 40))
        if case.is_tuned:
            parts.append(folder / f"{dataset}_{optimizer}_trials.nc")
            write_trials(made_up_trials(config, dataset, optimizer), parts[-1])
    for number, point in enumerate(config.sweep("damping").points):
        labels = {"sweep": "damping", "sweep_parameter": "damping", "sweep_point": point}
        attrs = attributes(config, "digits", "adamqlr", **labels)
        parts.append(folder / f"sweep_{number}.nc")
        write_cube(parts[-1], build_cube([runs_dataset(made_up("digits", "adamqlr", 90 + number), attrs)], 40))
    write_study(parts, folder / "study.nc")
    return folder / "study.nc"


@pytest.fixture(scope="module")
def study_tree(study_file: Path) -> xr.DataTree:
    return load_results(study_file)


@pytest.mark.parametrize(
    ("suite", "name"), [(suite, name) for suite in ("epochs", "sensitivity") for name in figures_of(STUDY, suite, {})]
)
def test_figures_come_with_their_numbers_and_are_reproducible(
    suite: str, name: str, study_file: Path, tmp_path: Path
) -> None:
    for attempt in ("one", "two"):
        draw_figure(name, study_file, suite, None, tmp_path / attempt)
    for suffix in ("pdf", "png", "csv"):
        first, second = (tmp_path / f"{attempt}.{suffix}" for attempt in ("one", "two"))
        assert first.stat().st_size > 1000 or suffix == "csv"
        assert first.read_bytes() == second.read_bytes()
    shown = {
        "tuning_budget": {key for key, spec in OPTIMIZERS.items() if spec.space},
        "ablation_damping": {"adam", "adamqlr_undamped", "adamqlr"},
        "ablation_curvature": {"adam", "adamqlr", "adamqlr_hessian"},
        "trajectories_together": {
            *("sgd_minimal", "sgd_full", "adam", "kfac", "adamqlr_hessian", "adamqlr_hessian_untuned")
        },
        "damping": {"adamqlr"} if suite == "sensitivity" else set(OPTIMIZERS),
    }.get(name, set(OPTIMIZERS))
    assert set(pd.read_csv(tmp_path / "one.csv")["optimizer"]) == shown


def test_performance_is_accuracy_for_classes_and_loss_for_real_targets(study_tree: xr.DataTree) -> None:
    figure, numbers = performance(Study(study_tree, STUDY), "epochs")
    shown = numbers.groupby("dataset")["metric"].unique().map(set).to_dict()
    assert shown == {"digits": {"train_accuracy", "test_accuracy"}, "diabetes": {"train_loss", "test_loss"}}
    labels = {axes.get_ylabel() for axes in figure.axes}
    assert labels == {"Training accuracy", "Test accuracy", "Training loss", "Test loss"}
    titles = [child.get_text() for axes in figure.axes for child in axes.texts]
    assert any("Baydin SGD 3/4" in title for title in titles)
    cube = study_tree["epochs/diabetes/adam"].to_dataset()
    drawn = numbers[(numbers.dataset == "diabetes") & (numbers.optimizer == "adam") & (numbers.metric == "test_loss")]
    np.testing.assert_allclose(drawn["median"], cube["value"].sel(metric="test_loss").median("seed"))


def test_crosses_of_infinite_medians_are_seen_and_explained(study_tree: xr.DataTree) -> None:
    tree = study_tree.copy(deep=True)
    for dataset in ("digits", "diabetes"):
        tree[f"epochs/{dataset}/baydin_sgd"].to_dataset()["value"].values[:] *= 1e6
    figure, _ = loss(Study(tree, STUDY), "epochs")
    crosses = [(axes, line) for axes in figure.axes for line in axes.lines if line.get_marker() == "X"]
    assert len(crosses) == 4, "one for Baydin SGD in each panel"
    for axes, line in crosses:
        low, high = axes.get_ylim()
        assert low <= np.asarray(line.get_ydata())[0] <= high
    assert "median diverges" in [text.get_text() for text in figure.legends[0].get_texts()]
    # A learning rate ends where its run does, and is never infinite.
    figure, _ = learning_rate(Study(tree, STUDY), "epochs")
    assert "median diverges" not in [text.get_text() for text in figure.legends[0].get_texts()]


def test_damping_that_runs_away_leaves_the_others_visible(study_tree: xr.DataTree) -> None:
    tree = study_tree.copy(deep=True)
    values = tree["epochs/digits/kfac"].to_dataset()["value_by_step"]
    values.loc[{"metric": "damping", "step": values["step"][-3:]}] = 1e30
    figure, numbers = damping(Study(tree, STUDY), "epochs")
    assert figure.axes[0].get_ylim()[1] < 1e5
    assert numbers["median"].max() == 1e30, "the numbers are whole"


def test_every_optimizer_has_a_color_of_its_own() -> None:
    colors = [line_style(OPTIMIZERS[key])["color"] for key in OPTIMIZERS]
    assert len(set(colors)) == len(OPTIMIZERS)


@pytest.mark.parametrize("name", tables_of(STUDY, "epochs", {}))
def test_tables_come_in_four_formats(name: str, study_file: Path, tmp_path: Path) -> None:
    write_table(name, study_file, "epochs", None, tmp_path / name)
    texts = {suffix: (tmp_path / f"{name}.{suffix}").read_text() for suffix in ("csv", "md", "tex", "html")}
    assert texts["md"].startswith("|")
    assert r"\toprule" in texts["tex"]
    assert "<table" in texts["html"]
    assert not set("±ε–…−") & set(texts["tex"]), "LaTeX without Unicode input"
    assert ("Digits" if name == "provenance" else "Adam") in texts["md"]


def test_final_results_mark_the_best_and_show_divergence(study_tree: xr.DataTree) -> None:
    table = final_results.tabulate(Study(study_tree, STUDY), "epochs")
    numbers = table.numbers.set_index(["dataset", "optimizer"])
    cube = study_tree["epochs/digits/adam"].to_dataset()
    last = cube["value"].isel(time=-1)
    gap = (last.sel(metric="test_loss") - last.sel(metric="train_loss")).median()
    assert numbers.loc[("digits", "adam"), "generalization_gap"] == pytest.approx(float(gap))
    assert numbers.loc[("digits", "adam"), "test_accuracy"] == pytest.approx(
        float(last.sel(metric="test_accuracy").median())
    )
    assert numbers.loc[("digits", "baydin_sgd"), "survived"] == 0.25
    assert numbers.loc[("digits", "baydin_sgd"), "test_loss"] == np.inf
    shown = table.shown.set_index(["Dataset", "Optimizer"])
    assert shown.loc[("Digits", "Baydin SGD"), "Test loss"] == "diverged"
    assert shown.loc[("Diabetes", "Adam"), "Test accuracy"] == "–"
    digits = numbers.loc["digits"]
    best = table.best["Test loss"].to_numpy(dtype=bool)[table.numbers["dataset"] == "digits"]
    assert digits.index[best].tolist() == [digits["test_loss"].idxmin()]


def test_large_numbers_are_written_out(study_tree: xr.DataTree) -> None:
    tree = study_tree.copy(deep=True)
    cube = tree["epochs/digits/adam"].to_dataset()
    cube["final_step"].values[:] = 24_000
    cube["final_time"].values[:] = [9_000, 10_000, 14_321, 20_000]
    table = final_results.tabulate(Study(tree, STUDY), "epochs")
    row = table.shown.set_index(["Dataset", "Optimizer"]).loc[("Digits", "Adam"), :]
    assert row["Steps"] == "24000"
    assert "e+" not in row["Time (s)"]


def test_how_equal_values_round_is_no_spread() -> None:
    equal = np.full(50, 0.7)
    assert equal.std() > 0
    assert final_results.with_uncertainty(0.7, float(equal.std())) == "0.7"


def test_a_median_some_of_whose_resamples_diverge_has_no_end_of_its_uncertainty(study_tree: xr.DataTree) -> None:
    tree = study_tree.copy(deep=True)
    values = tree["epochs/digits/adam"].to_dataset()["value"]
    values.loc[{"metric": "test_loss", "seed": values["seed"][0]}] = np.inf
    shown = final_results.tabulate(Study(tree, STUDY), "epochs").shown.set_index(["Dataset", "Optimizer"])
    assert str(shown.loc[("Digits", "Adam"), "Test loss"]).endswith(" ± ∞")


def test_hyperparameters_that_were_not_tuned_are_in_parentheses(study_tree: xr.DataTree) -> None:
    table = hyperparameters.best(Study(study_tree, STUDY), "epochs")
    shown = table.shown.set_index(["Dataset", "Optimizer"])
    assert shown.loc[("Digits", "Adam"), "lr"] == "0.01235"
    assert shown.loc[("Digits", "Adam (Untuned)"), "lr"] == "(0.01235)"
    assert shown.loc[("Rosenbrock", "Adam"), "batch_size"] == "(100)"
    assert shown.loc[("Digits", "Adam"), "momentum"] == "–"


def test_a_sensitivity_study_shows_where_every_value_ends(study_tree: xr.DataTree) -> None:
    _, numbers = sensitivity.draw(Study(study_tree, STUDY), "sensitivity", sweep="damping", parameter="Initial damping")
    test = numbers[numbers["metric"] == "test_loss"].set_index("value")
    assert test.index.tolist() == [1e-4, 0.01, 1]
    for value, point in ((1e-4, "0.0001"), (1.0, "1")):
        cube = study_tree[f"sensitivity/damping/{point}"].to_dataset()
        expected = cube["value"].sel(metric="test_loss").isel(time=-1).median()
        assert test["median"].loc[value] == pytest.approx(float(expected))


def test_an_ablation_of_one_dataset_draws_only_that(study_tree: xr.DataTree) -> None:
    _, numbers = ablation(Study(study_tree, STUDY), "epochs", ["adam", "adamqlr"], ["digits"])
    assert set(numbers["dataset"]) == {"digits"}
    assert set(numbers["optimizer"]) == {"adam", "adamqlr"}


def test_the_best_so_far_is_what_a_search_would_choose() -> None:
    nan, inf = float("nan"), float("inf")
    values = np.array([[3.0, nan, nan], [2.0, 5.0, nan], [inf, nan, nan], [4.0, 4.5, 6.0], [1.0, nan, nan]])
    orders = np.array([[0, 1, 2, 3, 4], [2, 4, 3, 0, 1]])
    expected = [[3, 5, 5, 6, 6], [inf, 1, 6, 6, 6]]
    np.testing.assert_array_equal(best_so_far(values, orders, np.zeros(5, dtype=bool)), expected)
    # The fourth trial went furthest and diverged after all: chosen only as long as there is no other.
    diverged = np.array([False, False, False, True, False])
    np.testing.assert_array_equal(best_so_far(values, orders, diverged)[0], [3, 5, 5, 5, 5])
    np.testing.assert_array_equal(best_so_far(values, np.array([[3, 0, 1, 2, 4]]), diverged), [[6, 3, 5, 5, 5]])


@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_after_all_trials_the_order_does_not_matter(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(9, 3))
    values[np.arange(3) > generator.integers(0, 3, size=(9, 1))] = np.nan
    best = best_so_far(values, np.array([generator.permutation(9) for _ in range(5)]), np.zeros(9, dtype=bool))[:, -1]
    last = np.flatnonzero(np.isfinite(values).any(axis=0))[-1]
    np.testing.assert_array_equal(best, np.full(5, np.nanmin(values[:, last])))


def test_profiles_count_every_case_and_start_with_the_fastest(study_tree: xr.DataTree) -> None:
    pairs = Study(study_tree, STUDY).test_pairs("epochs")
    targets = {key: target_loss([pair.cube for pair in group], 0.1) for key, group in by_dataset(pairs).items()}
    ratios = cost_ratios(pairs, "step", targets)
    assert set(ratios) == set(OPTIMIZERS)
    stacked = np.stack(list(ratios.values()))
    assert stacked.shape[1] == 2 * SEEDS
    solved = np.isfinite(stacked).any(axis=0)
    assert solved.all()
    np.testing.assert_array_equal(stacked.min(axis=0)[solved], 1)


def test_the_divergence_table_counts_runs(study_tree: xr.DataTree) -> None:
    table = divergence.tabulate(Study(study_tree, STUDY), "epochs")
    numbers = table.numbers.set_index(["dataset", "optimizer"])
    assert numbers.loc[("digits", "baydin_sgd"), "runs"] == 4
    assert numbers.loc[("digits", "baydin_sgd"), "diverged"] == 3
    assert numbers.loc[("digits", "baydin_sgd"), "median_step"] == 29
    assert numbers.loc[("digits", "adam"), "diverged"] == 0
    shown = table.shown.set_index(["Dataset", "Optimizer"])
    assert shown.loc[("Digits", "Adam"), "Median step"] == "–"


def test_unknown_names_are_refused(config: StudyConfig, study_file: Path, tmp_path: Path) -> None:
    for maker, name, problem in (
        (draw_figure, "scatter", "unknown figure 'scatter': suite 'epochs' has trajectories"),
        (write_table, "scatter", "unknown table 'scatter': suite 'epochs' has provenance"),
    ):
        with pytest.raises(UserError, match=problem):
            maker(name, study_file, "epochs", None, tmp_path / "x")
    with pytest.raises(UserError, match="unknown suite 'runtime': this study has epochs"):
        draw_figure("loss", study_file, "runtime", None, tmp_path / "x")
    with pytest.raises(UserError, match=r"digits_adam\.nc: expected study, found cube"):
        draw_figure("loss", study_file.with_name("digits_adam.nc"), "epochs", None, tmp_path / "x")
    other = config.model_copy(update={"suites": {**config.suites, "other": config.suite("epochs")}})
    with pytest.raises(UserError, match="no 'other' in this study, which has epochs"):
        draw_figure("loss", study_file, "other", other, tmp_path / "x")
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == "[]"


def test_legends_are_within_their_figures() -> None:
    """However long the labels of some optimizers are, and however narrow the figure."""
    for width in (TEXT_WIDTH, TEXT_WIDTH / 2):
        figure = plt.figure(figsize=(width, 3))
        add_legend(figure, OPTIMIZERS.values())
        figure.draw_without_rendering()
        extent = figure.legends[0].get_window_extent()
        assert extent.x0 >= 0, f"{width} inches"
        assert extent.x1 <= figure.bbox.width, f"{width} inches"
        plt.close(figure)
