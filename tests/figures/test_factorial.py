"""What heuristics do for each direction: ratios by hand, and figures and tables of a small made-up study."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

from adamqlr.errors import UserError
from adamqlr.figures import evolution, factorial, profiles, tuning_budget
from adamqlr.figures.contents import figures_of
from adamqlr.figures.style import paper_style
from adamqlr.results.attributes import file_attributes
from adamqlr.results.cube import write_cube
from adamqlr.results.factorial import Ratio, best_loss, cells_of, final_loss, ratio_of_medians
from adamqlr.results.join import write_study
from adamqlr.results.statistics import Resampling
from adamqlr.results.study import Study
from adamqlr.results.study_file import load_results
from adamqlr.stages.figures import draw_figure
from adamqlr.stages.tables import write_table
from adamqlr.study.case import Case, cases_of
from adamqlr.study.config import StudyConfig, parse_config
from adamqlr.tables import time_to_target
from adamqlr.tables.contents import tables_of
from adamqlr.tables.factorial import tabulate
from adamqlr.training.history import History
from adamqlr.tuning.trials import Trial, trials_dataset
from tests.results.histories import cube_of

INF = float("inf")
SEEDS = 4
FACTORIAL: dict[str, Any] = {
    "directions": {
        "gradient": {"label": "Gradient", "direction": "gradient"},
        "nadam": {"label": "NAdam", "direction": "torch.optim:NAdam", "options": {"lr": 1.0}},
        "kfac": {"label": "K-FAC", "optimizer": "adamqlr:KFAC", "heuristics": {"damping": 0.1}},
    },
    "heuristics": {
        "tuned": {
            "label": "Tuned",
            "heuristics": {"damping": 0.0, "adapt_damping": False},
            "space": {"lr": {"loguniform": [1e-3, 1]}},
        },
        "lr": {"heuristics": {"damping": 0.0, "adapt_damping": False}},
        "all": {"label": "All", "heuristics": {"momentum": None, "damping": 0.01}},
    },
}
SETTINGS: dict[str, Any] = {
    "name": "made-up",
    "datasets": ["digits", "diabetes", "rosenbrock"],
    "optimizers": ["adam", "adamqlr"],
    "factorials": {"small": {**FACTORIAL, "datasets": ["digits", "diabetes"]}},
    "statistics": {"resamples": 40},
}
# What every run's loss is multiplied with; the median of those that diverge is infinite.
FACTORS = {"tuned": 1.0, "lr": 0.5, "all": 4.0}
DIVERGED = {"nadam-all", "kfac-tuned", "kfac-all"}


def made_up(optimizer: str) -> list[History]:
    """Make runs whose test loss falls, and rises at the end, so that the lowest is 0.1 times a factor."""
    factor, histories = FACTORS.get(optimizer.rpartition("-")[2], 1.0), []
    for seed in range(SEEDS):
        history = History(seed=seed, diverged=optimizer in DIVERGED and seed > 0)
        for step, loss in enumerate((1.0, 0.4, 0.1, 0.2)):
            value = loss * (factor if step > 1 else 1.0) * (1 + 0.01 * seed)
            metrics = dict.fromkeys(("validation_loss", "test_loss"), value)
            if step:
                metrics |= {"train_loss": value, "lr": 0.1}
            history.append(step, 0.1 * step + 0.01, metrics, evaluation_seconds=0.0)
        histories.append(history)
    return histories


@pytest.fixture(scope="module")
def config() -> StudyConfig:
    return parse_config(SETTINGS, "test")


@pytest.fixture(scope="module")
def study_file(config: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, parts = tmp_path_factory.mktemp("study"), []
    for case in cases_of(config, "epochs"):
        if not case.is_trajectory:
            parts.append(folder / f"{case.dataset}_{case.optimizer}.nc")
            write_cube(parts[-1], cube_of(case, made_up(case.optimizer), 30))
    write_study(parts, folder / "study.nc")
    return folder / "study.nc"


@pytest.fixture(scope="module")
def study(config: StudyConfig, study_file: Path) -> Study:
    return Study(load_results(study_file), config)


def drawn(maker: Callable[..., Any], study: Study) -> tuple[Figure, pd.DataFrame]:
    with paper_style():
        figure, numbers = maker(study, "epochs", "small")
        figure.draw_without_rendering()
    return figure, numbers


def test_ratios_by_hand() -> None:
    resampling = Resampling(50, 0)

    def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
        one, other = (xr.DataArray(list(values), dims="seed") for values in (above, below))
        return ratio_of_medians(one, other, resampling)

    assert ratio([1, 1, 1], [2, 2, 2]) == (0.5, 0.5, 0.5)
    assert ratio([0, 0, 0], [0, 0, 0]) == (1, 1, 1)
    # What runs of one seed share cancels.
    assert ratio([2, 4, 6], [1, 2, 3]) == (2, 2, 2)
    finite, infinite = [1.0, 2, 3], [INF] * 3
    assert ratio(infinite, finite) == (INF, INF, INF)
    assert ratio(finite, infinite) == (0, 0, 0)
    unknown = ratio(infinite, infinite)
    assert np.isnan(unknown.estimate)
    assert unknown[1:] == (0, INF)
    some = ratio([1, 1, INF], finite)
    assert some.estimate == 0.5
    assert some.upper == INF


def test_a_diverged_run_ends_infinitely_bad_but_keeps_its_best(study: Study) -> None:
    cube = study.tree["epochs/digits/nadam-all"].to_dataset()
    assert final_loss(cube).values.tolist() == [pytest.approx(0.8), INF, INF, INF]
    # The lowest validation loss is that of step 2, and of step 1 where the factor is large: 0.1 · 4 is that of step 1.
    assert best_loss(cube).values == pytest.approx([0.4, 0.404, 0.408, 0.412])


def test_cells_are_measured_against_the_first_heuristics(study: Study, config: StudyConfig) -> None:
    cells = cells_of(study, "epochs", "small")
    assert list(cells) == ["digits", "diabetes"]
    assert [(c.pair.optimizer, c.reference.optimizer) for c in cells["digits"]][3:5] == [
        ("nadam-tuned", "nadam-tuned"),
        ("nadam-lr", "nadam-tuned"),
    ]
    without = {k: v for k, v in study.tree.to_dict().items() if not k.endswith("digits/nadam-tuned")}
    rest = cells_of(Study(xr.DataTree.from_dict(without), config), "epochs", "small")
    assert [len(group) for group in rest.values()] == [6, 9]


def test_the_table_says_how_many_times_as_large_losses_are(study: Study) -> None:
    table = tabulate(study, "epochs", "small")
    numbers = table.numbers.set_index(["dataset", "direction", "heuristics"]).loc["digits"]
    assert numbers.loc[("gradient", "lr"), "final"] == pytest.approx(0.5)
    assert [numbers.loc[("gradient", "all"), name] for name in ("final", "best")] == pytest.approx([4, 4])
    assert numbers.loc[("nadam", "all"), "final"] == INF
    assert numbers.loc[("kfac", "lr"), "final"] == 0
    assert numbers["final"].isna().loc[("kfac", "all")]
    assert numbers.loc[("kfac", "all"), "survived"] == 0.25
    shown = table.shown.set_index(["Dataset", "Direction", "Heuristics"]).loc["Digits"]["Final test loss, relative"]
    assert shown["Gradient", "Tuned"] == "1"
    assert shown["Gradient", "lr"] == "0.5 [0.5, 0.5]"
    assert shown["NAdam", "All"].startswith("∞ [")
    assert shown["K-FAC", "All"] == "both diverged"


def test_what_is_infinite_stands_at_the_edge(study: Study) -> None:
    figure, numbers = drawn(factorial.draw, study)
    assert len(numbers) == 2 * 3 * 3 * 2
    for axes in figure.axes[:2]:
        low, high = axes.get_xlim()
        found = [(line.get_marker(), np.ravel(line.get_xdata())) for line in axes.lines]
        points = [(marker, float(at[0])) for marker, at in found if len(at) == 1]
        places = dict(points)
        assert places[">"] == high
        assert places["<"] == low
        assert places["X"] == 1
        # Two for each cell that is no reference.
        assert len(points) == 3 * 2 * 2
        assert all(low <= at <= high for _, at in points)
        assert low < 0.5 < 4 < high
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"Tuned", "lr", "All", "At the end", "Beyond the axis", "Both medians diverge"} <= labels
    plt.close(figure)


def test_heuristics_have_one_color_everywhere(study: Study) -> None:
    both = parse_config(
        {
            **SETTINGS,
            "factorials": {
                **SETTINGS["factorials"],
                "other": {
                    "directions": {"adam_with": {"direction": "adam"}},
                    "heuristics": {name: FACTORIAL["heuristics"][name] for name in ("all", "lr")},
                },
            },
        },
        "test",
    )
    colors = factorial.heuristics_colors(both)
    assert colors == factorial.heuristics_colors(study.config)
    assert len(set(map(tuple, colors.values()))) == 3
    figure, numbers = drawn(factorial.curves, study)
    assert len(figure.axes) == 3 * 2
    for number, axes in enumerate(figure.axes):
        found = {line.get_color() for line in axes.lines if line.get_marker() != "X"}
        # Nothing of the first row diverges, so that all of its curves are there.
        assert found == set(colors.values()) if number < 2 else found <= set(colors.values())
    assert set(numbers["direction"]) == {"gradient", "nadam", "kfac"}
    plt.close(figure)


def test_no_text_lies_on_another(study: Study) -> None:
    for maker in (factorial.draw, factorial.curves):
        figure, _ = drawn(maker, study)
        texts = [axes.title for axes in figure.axes] + figure.legends[0].get_texts()
        texts += [label for axes in figure.axes for label in (axes.xaxis.label, axes.yaxis.label)]
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        assert not any(one.overlaps(two) for k, one in enumerate(boxes) for two in boxes[:k])
        plt.close(figure)


def test_factorials_are_left_out_of_other_figures(study: Study, config: StudyConfig) -> None:
    names = figures_of(config, "epochs", {})
    assert {"performance", "factorial_small", "factorial_small_curves"} <= set(names)
    assert "factorial_small" in tables_of(config, "epochs", {})
    with paper_style():
        for figure, numbers in (
            evolution.performance(study, "epochs"),
            evolution.learning_rate(study, "epochs"),
            profiles.draw(study, "epochs", 0.1),
        ):
            assert set(numbers["optimizer"]) == {"adam", "adamqlr"}
            plt.close(figure)
    assert "tuning_budget" in names
    trials = [Trial(number, {"lr": 0.1}, [0.5, 0.1 * number], "complete", 1.0) for number in range(1, 4)]
    searches: dict[str, xr.Dataset] = {}
    for key in ("adam", "gradient-tuned"):
        attrs = file_attributes(Case(config, "epochs", "digits", key), seeds=(0,), hyperparameters={}, device="a CPU")
        attrs |= {"objective": "validation_loss"}
        searches[f"/tuning/epochs/digits/{key}"] = trials_dataset(trials, [1, 2], "epochs", attrs)
    _, numbers = tuning_budget.draw(Study(xr.DataTree.from_dict(searches), config), "epochs")
    assert set(numbers["optimizer"]) == {"adam"}
    alone = parse_config({**SETTINGS, "optimizers": []}, "test")
    assert set(figures_of(alone, "epochs", {})) == {"factorial_small", "factorial_small_curves"}


def test_profiles_and_their_table_have_one_target(study: Study) -> None:
    """The best of all is a factorial's, which the curves leave out: some of Adam's runs do not get there."""
    with paper_style():
        figure, numbers = profiles.draw(study, "epochs", 0.0)
        plt.close(figure)
    reached = time_to_target.tabulate(study, "epochs", 0.0).numbers.set_index("optimizer")["reached"]
    for optimizer in ("adam", "adamqlr"):
        fractions = numbers[numbers["optimizer"] == optimizer]["fraction"]
        assert 0 < fractions.max() < 1
        assert fractions.max() == pytest.approx(reached[optimizer].mean())


def test_figures_of_nothing_say_so(study: Study) -> None:
    leaves = {node.path: node.to_dataset() for node in study.tree.leaves if not node.path.endswith("-tuned")}
    partial = study._replace(tree=xr.DataTree.from_dict(leaves))
    with paper_style():
        nothing = [draw(partial, "epochs", "small") for draw in (factorial.draw, factorial.curves)]
        for figure, numbers in (evolution.damping(study, "epochs"), *nothing):
            assert re.match("No (run|direction)", figure.axes[0].texts[0].get_text())
            assert len(numbers) == 0
            plt.close(figure)


@pytest.mark.parametrize("name", ["factorial_small", "factorial_small_curves"])
def test_equal_input_gives_equal_figures(study_file: Path, tmp_path: Path, name: str) -> None:
    for stem in ("one", "two"):
        draw_figure(name, study_file, "epochs", None, tmp_path / stem)
    for suffix in (".png", ".pdf", ".csv"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_equal_input_gives_equal_tables(study_file: Path, tmp_path: Path) -> None:
    for stem in ("one", "two"):
        write_table("factorial_small", study_file, "epochs", None, tmp_path / stem)
    for suffix in (".csv", ".md", ".tex", ".html"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_a_directions_own_choices_come_first(config: StudyConfig) -> None:
    assert config.optimizer("gradient-tuned").heuristics == {"damping": 0.0, "adapt_damping": False}
    assert config.optimizer("kfac-tuned").options == {"damping": 0.1, "adapt_damping": False}
    assert set(config.space("nadam-tuned")) == {"lr"}
    assert config.spec("nadam-all").label == "NAdam: All"
    tuned = {**FACTORIAL["directions"]["kfac"], "heuristics": {}, "space": {"damping": {"loguniform": [1e-3, 1]}}}
    layout = {**FACTORIAL, "directions": {"kfac": tuned}}
    study = parse_config({**SETTINGS, "factorials": {"small": layout}}, "test")
    assert set(study.space("kfac-tuned")) == {"damping", "lr"}
    assert set(study.space("kfac-all")) == {"damping"}


def test_two_factorials_cannot_share_an_optimizer() -> None:
    with pytest.raises(UserError, match="another factorial has 'gradient-all' too"):
        parse_config({**SETTINGS, "factorials": {"one": FACTORIAL, "two": FACTORIAL}}, "test")
