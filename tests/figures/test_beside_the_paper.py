"""What stands beside final results: published values, early-stopped results, and the clock that counts evaluation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from adamqlr.errors import UserError
from adamqlr.figures.contents import figures_of
from adamqlr.figures.evolution import loss_with_evaluation, sharpness
from adamqlr.figures.published import draw
from adamqlr.results.cube import write_cube
from adamqlr.results.join import write_study
from adamqlr.results.published import Key, Value, read_published
from adamqlr.results.study import Study
from adamqlr.stages.figures import draw_figure
from adamqlr.stages.tables import write_table
from adamqlr.study.case import Case
from adamqlr.study.config import parse_config
from adamqlr.tables import best_so_far, final_results
from adamqlr.training.history import History
from tests.results.histories import cube_of

CONFIG = parse_config({"name": "made-up", "datasets": ["diabetes"], "optimizers": ["adam", "kfac"]}, "test")
# Adam is best as it ends, K-FAC before it overfits, and then diverges.
VALIDATION = {"adam": [1.0, 0.8, 0.6, 0.4], "kfac": [1.0, 0.2, 0.5, 0.9]}


def cube(optimizer: str, is_timed: bool = True) -> xr.Dataset:
    histories = []
    for seed in range(3):
        history = History(seed, diverged=optimizer == "kfac")
        for step, loss in enumerate(VALIDATION[optimizer]):
            metrics = {"train_loss": loss, "validation_loss": loss, "test_loss": loss + 0.01 * (1 + seed)}
            history.append(step, 0.1 * step, metrics, evaluation_seconds=0.5)
        histories.append(history)
    built = cube_of(Case(CONFIG, "epochs", "diabetes", optimizer), histories)
    return built if is_timed else built.assign(evaluation_seconds=built["evaluation_seconds"] * np.nan)


def study(published: dict[Key, Value] | None = None, timed: tuple[str, ...] = ("adam", "kfac")) -> Study:
    cubes = {f"epochs/diabetes/{key}": cube(key, key in timed) for key in VALIDATION}
    return Study(xr.DataTree.from_dict(cubes), CONFIG, published or {})


def test_early_stopped_results_stand_beside_the_final_ones() -> None:
    table = best_so_far.tabulate(study(), "epochs")
    numbers = table.numbers.set_index("optimizer")
    assert [numbers.loc["adam", f"{end}_test_loss"] for end in ("best", "final")] == pytest.approx([0.42, 0.42])
    assert numbers.loc["kfac", "best_test_loss"] == pytest.approx(0.22), "where its validation loss was 0.2"
    assert numbers.loc["kfac", "final_test_loss"] == np.inf
    shown = table.shown.set_index("Optimizer")
    assert shown.loc["K-FAC", "Final test loss"] == "diverged"
    assert shown.loc["K-FAC", "Best test accuracy"] == "–"


def test_with_evaluation_on_the_clock_what_was_not_timed_is_left_out_until_nothing_is_left() -> None:
    _, numbers = loss_with_evaluation(study(timed=("adam",)), "epochs")
    assert set(numbers["optimizer"]) == {"adam"}
    # Three steps of 0.1 s, and after each of them an evaluation of 0.5 s.
    assert numbers["time"].max() == pytest.approx(1.8)
    with pytest.raises(UserError, match="no cube says what evaluation takes"):
        loss_with_evaluation(study(timed=()), "epochs")


def test_where_no_update_was_measured_there_is_no_figure_of_sharpness() -> None:
    with pytest.raises(UserError, match="no cube has the sharpness of updates; train again"):
        sharpness(study(), "epochs")


ADAM = Key("epochs", "diabetes", "adam", "test_loss")


def test_final_results_show_published_values_where_there_are_any() -> None:
    table = final_results.tabulate(study({ADAM: Value(0.4, 0.02)}), "epochs")
    shown = table.shown.set_index("Optimizer")["Published"]
    assert shown.to_dict() == {"Adam": "test loss 0.4 ± 0.02", "K-FAC": "–"}
    numbers = table.numbers.set_index("optimizer")
    assert numbers.loc["adam", "published_test_loss"] == 0.4
    assert numbers.loc["adam", "published_test_loss_error"] == 0.02
    for published in ({}, {ADAM._replace(suite="runtime_train"): Value(0.4, 0.02)}):
        assert "Published" not in final_results.tabulate(study(published), "epochs").shown


def test_published_values_are_drawn_beside_medians() -> None:
    published = {ADAM: Value(0.4, float("nan")), ADAM._replace(optimizer="kfac"): Value(0.3, 0.1)}
    figure, numbers = draw(study(published | {ADAM._replace(optimizer="sgd"): Value(1, 1)}), "epochs")
    found = numbers.set_index("optimizer")
    assert found["published"].to_dict() == {"adam": 0.4, "kfac": 0.3}, "what the study lacks is left out"
    assert found.loc["adam", "median"] == pytest.approx(0.42)
    assert found.loc["kfac", "median"] == np.inf
    assert [axes.get_title() for axes in figure.axes] == ["Diabetes: test loss"]
    assert "Median diverges" in [text.get_text() for text in figure.legends[0].get_texts()]
    with pytest.raises(UserError, match="no published value is of a dataset and an optimizer of this study"):
        draw(study({ADAM._replace(dataset="digits"): Value(1, 1)}), "epochs")


def test_the_figure_is_offered_where_the_file_is(tmp_path: Path) -> None:
    parts = []
    for optimizer in VALIDATION:
        parts.append(tmp_path / f"{optimizer}.nc")
        write_cube(parts[-1], cube(optimizer))
    write_study(parts, tmp_path / "study.nc")
    with pytest.raises(UserError, match="unknown figure 'published'"):
        draw_figure("published", tmp_path / "study.nc", "epochs", None, tmp_path / "figure")
    file = tmp_path / "published.csv"
    file.write_text("suite,dataset,optimizer,metric,value,error\nepochs,diabetes,adam,test_loss,0.4,0.02\n")
    assert "published" in figures_of(CONFIG, "epochs", read_published(file))
    assert "published" not in figures_of(CONFIG, "epochs", {})
    draw_figure("published", tmp_path / "study.nc", "epochs", None, tmp_path / "figure")
    assert pd.read_csv(tmp_path / "figure.csv")["published"].tolist() == [0.4]
    write_table("final_results", tmp_path / "study.nc", "epochs", None, tmp_path / "table")
    assert "test loss 0.4 ± 0.02" in (tmp_path / "table.md").read_text()
