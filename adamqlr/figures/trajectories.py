"""Trajectories on the Rosenbrock function (paper, figure 2)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adamqlr.figures.lines import line_style
from adamqlr.figures.panels import add_legend
from adamqlr.figures.style import TEXT_WIDTH
from adamqlr.problems.rosenbrock_function import START, A, objective
from adamqlr.results.study import Pair, Study

_COLUMNS = 5
# Figure 2 of the paper.
_TOGETHER = ("sgd_minimal", "sgd_full", "adam", "adamqlr_hessian", "adamqlr_hessian_untuned", "kfac")
_WINDOW = {"x": (-1.6, 1.6), "y": (-1.5, 1.6)}


def draw(study: Study, suite: str) -> tuple[Figure, pd.DataFrame]:
    """Draw each optimizer's first run over the contours of the objective, one panel each; nothing is resampled."""
    pairs = [pair for pair in study.pairs(suite) if pair.is_trajectory]
    rows = -(-len(pairs) // _COLUMNS)
    figure, grid = plt.subplots(rows, _COLUMNS, figsize=(TEXT_WIDTH, 1.5 * rows + 0.3), squeeze=False)
    tables = []
    for axes, pair in zip(grid.flat, pairs, strict=False):
        _draw_contours(axes)
        tables.append(_draw_path(axes, pair))
    for axes in grid.flat[len(pairs) :]:
        axes.set_axis_off()
    for number, axes in enumerate(grid.flat[: len(pairs)]):
        outer = {"bottom": number + _COLUMNS >= len(pairs), "left": number % _COLUMNS == 0}
        axes.tick_params(labelbottom=outer["bottom"], labelleft=outer["left"])
        axes.set(xlabel="x" if outer["bottom"] else "", ylabel="y" if outer["left"] else "")
    return figure, pd.concat(tables, ignore_index=True)


def draw_together(study: Study, suite: str) -> tuple[Figure, pd.DataFrame]:
    """Draw the first run of the optimizers that the paper shows over the contours of the objective, in one panel.

    Where a study has none of them, all that it has are drawn.

    Returns:
        The figure, and the paths: a row for each optimizer and step, with the objective there.
    """
    pairs = [pair for pair in study.pairs(suite) if pair.is_trajectory]
    pairs = [pair for pair in pairs if pair.optimizer in _TOGETHER] or pairs
    figure, axes = plt.subplots(figsize=(TEXT_WIDTH * 0.62, 3.9))
    _draw_contours(axes)
    tables = [_draw_line(axes, pair) for pair in pairs]
    axes.set(xlabel="x", ylabel="y")
    add_legend(figure, [pair.spec for pair in pairs])
    return figure, pd.concat(tables, ignore_index=True)


def _draw_contours(axes: Axes) -> None:
    x, y = np.meshgrid(np.linspace(*_WINDOW["x"], 200), np.linspace(*_WINDOW["y"], 200))
    height = objective(x, y)
    axes.contourf(x, y, np.log10(height + 1e-4), levels=14, cmap="Greys", alpha=0.4)
    axes.plot(A, A**2, "*", color="#e0a800", markersize=9, markeredgecolor="black", markeredgewidth=0.4, zorder=5)
    axes.plot(*START, "o", color="white", markersize=4, markeredgecolor="black", markeredgewidth=0.7, zorder=5)
    axes.grid(False)
    axes.set(xlim=_WINDOW["x"], ylim=_WINDOW["y"])


def _draw_path(axes: Axes, pair: Pair) -> pd.DataFrame:
    table = _draw_line(axes, pair)
    cube = pair.cube.isel(seed=0)
    value = float(table["objective"].iloc[-1])
    steps = int(cube["final_step"])
    outcome = f"diverged at step {steps}" if bool(cube["diverged"]) else f"f = {value:.1e}, {steps} steps"
    # Long names would run into those of the panels beside.
    axes.set_title(f"{pair.optimizer_label}\n", fontsize=7.5 if len(pair.optimizer_label) < 20 else 5.5)
    axes.annotate(outcome, (0.5, 1.02), xycoords="axes fraction", ha="center", va="bottom", fontsize=6, color="#444444")
    return table


def _draw_line(axes: Axes, pair: Pair) -> pd.DataFrame:
    cube = pair.cube.isel(seed=0)
    path = cube["parameters"].transpose("parameter", "step").values
    axes.plot(*path, **line_style(pair.spec), marker=".", markersize=2.5, zorder=4)
    return pd.DataFrame(
        {
            "optimizer": pair.optimizer,
            "step": cube["step"].values,
            "x": path[0],
            "y": path[1],
            "objective": objective(*path),
        }
    )
