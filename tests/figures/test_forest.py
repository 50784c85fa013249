"""The forest plot of claims: every verdict by color and marker, and nothing on top of anything else."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from adamqlr.figures.forest import draw
from adamqlr.figures.style import paper_style
from adamqlr.study.config import parse_config

SUITES = ("epochs", "runtime_train", "runtime_validation")
DATASETS = ("uci_protein", "fashion_mnist", "svhn", "cifar10", "digits")
CONFIG = parse_config(
    {"name": "made-up", "datasets": list(DATASETS), "optimizers": ["adam"], "suites": list(SUITES)}, "test"
)
COLORS = {"supported": "#0072b2", "refuted": "#c44e00", "undecided": "#6b6b6b"}
MARKERS = {"supported": "o", "refuted": "X", "undecided": "D"}


def row(claim: str, verdict: str = "supported", **other: Any) -> dict[str, Any]:
    values = {"suite": "epochs", "dataset": "digits", "scale": "log", "estimate": 1.0, "lower": 0.9, "upper": 1.05}
    return {"claim": claim, **values, "relation": "≤", "limit": 1.1, "verdict": verdict, **other}


def drawn(rows: list[dict[str, Any]]) -> Figure:
    claims = dict.fromkeys(one["claim"] for one in rows)
    statement = "What is claimed of one optimizer and another, {} in all, at such a length that it needs two lines."
    summary = [{"claim": name, "statement": statement.format(name), "verdict": "mixed"} for name in claims]
    with paper_style():
        figure = draw(pd.DataFrame(rows), pd.DataFrame(summary), CONFIG)
        figure.draw_without_rendering()
    return figure


def markers(axes: Axes) -> list[tuple[str, str, float]]:
    lines = [line for line in axes.lines if line.get_marker() != "None"]
    return [(str(line.get_color()), str(line.get_marker()), float(np.ravel(line.get_xdata())[0])) for line in lines]


def test_verdicts_differ_by_color_and_by_marker() -> None:
    (axes,) = drawn([row("a", verdict) for verdict in COLORS]).axes
    assert [found[:2] for found in markers(axes)] == list(zip(COLORS.values(), MARKERS.values(), strict=True))
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"Digits, epochs ({k})" for k in (1, 2, 3)]


@pytest.mark.parametrize("relation", ["≤", "<", "≥", ">"])
def test_the_wanted_side_is_shaded(relation: str) -> None:
    (axes,) = drawn([row("a", relation=relation)]).axes
    low, high = axes.get_xlim()
    (shade,) = axes.collections
    at = np.asarray(shade.get_paths()[0].vertices)[:, 0]
    wanted = (low, 1.1) if relation in ("≤", "<") else (1.1, high)
    assert (at.min(), at.max()) == pytest.approx(wanted)


def test_ratios_are_logarithmic_and_what_is_infinite_stands_at_the_edge() -> None:
    rows = [
        row("ratio", "refuted", estimate=np.inf, lower=np.inf, upper=np.inf),
        row("ratio", "undecided", estimate=np.nan, lower=0.0, upper=np.inf),
        row("difference", scale="linear", estimate=-0.2, lower=-np.inf, upper=-0.1, limit=0.0),
    ]
    ratio, difference = drawn(rows).axes
    assert (ratio.get_xscale(), difference.get_xscale()) == ("log", "linear")
    edge, unknown = (found for found in markers(ratio) if found[1] not in "<>")
    assert edge[2] == pytest.approx(ratio.get_xlim()[1])
    assert unknown[2] == pytest.approx(1.1), "at the limit"
    assert {line.get_linestyle() for line in ratio.lines} >= {":"}
    arrows = {(marker, at) for _, marker, at in markers(ratio) if marker in "<>"}
    assert arrows == set(zip("<>", ratio.get_xlim(), strict=True)), "where the line goes on"
    assert np.isfinite(difference.get_xlim()).all()


def boxes(figure: Figure, texts: list[Text]) -> np.ndarray:
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    return np.array([text.get_window_extent(renderer).extents for text in texts if text.get_text()])


def test_sixty_rows_are_readable() -> None:
    rows = [
        row(f"claim {claim}", dataset=dataset, suite=suite, estimate=estimate, lower=estimate / 1.1, upper=estimate * 2)
        for claim, estimate in enumerate((0.01, 0.9, 1.0, 300.0))
        for suite in SUITES
        for dataset in DATASETS
    ]
    figure = drawn(rows)
    assert len(figure.axes) == 4
    assert sum(len(markers(axes)) for axes in figure.axes) == len(rows) == 60
    labels = [label for axes in figure.axes for label in (*axes.get_yticklabels(), *axes.get_xticklabels())]
    low_x, low_y, high_x, high_y = boxes(figure, [*labels, *figure.texts]).T
    overlap = (np.minimum.outer(high_x, high_x) > np.maximum.outer(low_x, low_x)) & (
        np.minimum.outer(high_y, high_y) > np.maximum.outer(low_y, low_y)
    )
    np.fill_diagonal(overlap, False)
    assert not overlap.any()
    assert low_x.min() >= 0
    assert low_y.min() >= 0
    assert high_x.max() <= figure.bbox.width
    assert high_y.max() <= figure.bbox.height


def test_without_anything_to_draw_the_figure_says_so() -> None:
    columns = list(row("a"))
    with paper_style():
        figure = draw(pd.DataFrame(columns=columns), pd.DataFrame(columns=["claim", "statement", "verdict"]), CONFIG)
    assert [text.get_text() for text in figure.texts] == ["No claim could be weighed"]
