"""Figures of a factorial: what each combination of heuristics does for each direction."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adamqlr.figures.limits import limit_height
from adamqlr.figures.panels import COLUMNS, draw_curve, draw_nothing, keep_crosses_inside
from adamqlr.figures.style import TEXT_WIDTH, space_log_ticks
from adamqlr.results.factorial import MEASURES, Cell, cells_of, ratios_of
from adamqlr.results.statistics import Resampling, median_over_seeds, survived_fraction
from adamqlr.results.study import Study
from adamqlr.study.config import StudyConfig
from adamqlr.study.optimizer_settings import FactorialConfig

# Ratios beyond stand at a panel's edge.
_WIDEST = 100.0
_MEASURE_LABELS = {"final": "At the end", "best": "At the lowest validation loss"}


def draw(study: Study, suite: str, factorial: str) -> tuple[Figure, pd.DataFrame]:
    """Draw the test loss of every combination of heuristics relative to that of the same direction with the first.

    A panel for each dataset, a row for each direction.

    Returns:
        The figure, and the ratios: a row for each dataset, direction, heuristics and measure.
    """
    layout, colors = study.config.factorials[factorial], heuristics_colors(study.config)
    groups = cells_of(study, suite, factorial)
    if not groups:
        return draw_nothing("No direction was trained with the first heuristics, to which the others are compared.")
    columns = min(COLUMNS, len(groups))
    blocks = -(-len(groups) // columns)
    row = 0.12 * len(layout.heuristics)
    size = (TEXT_WIDTH, blocks * (0.6 + row * len(layout.directions)) + 0.8)
    figure, grid = plt.subplots(blocks, columns, figsize=size, sharey=True, squeeze=False)
    tables = []
    for axes, cells in zip(grid.flat, groups.values(), strict=False):
        numbers = _ratios(cells, study.resampling)
        _draw_ratios(axes, numbers, layout, colors)
        axes.set_title(cells[0].pair.dataset_label)
        axes.set_xlabel(f"Test loss ÷ that with “{layout.heuristics_label(layout.first)}”")
        tables.append(numbers)
    for axes in grid.flat[len(groups) :]:
        axes.set_axis_off()
    joined = pd.concat(tables, ignore_index=True)
    _add_legend(figure, layout, colors, _measure_handles(joined[joined["heuristics"] != layout.first]))
    return figure, joined


def curves(study: Study, suite: str, factorial: str) -> tuple[Figure, pd.DataFrame]:
    """Draw the test loss of every combination of heuristics against training time, a row for each direction."""
    layout, colors = study.config.factorials[factorial], heuristics_colors(study.config)
    groups = cells_of(study, suite, factorial)
    if not groups:
        return draw_nothing("No direction was trained with the first heuristics, to which the others are compared.")
    shape = (len(layout.directions), len(groups))
    size = (TEXT_WIDTH, max(1.35 * shape[0], 2.0) + 0.9)
    figure, grid = plt.subplots(*shape, figsize=size, sharex="col", sharey="col", squeeze=False)
    tables = []
    for column, cells in zip(grid.T, groups.values(), strict=True):
        drawn = []
        for axes, direction in zip(column, layout.directions, strict=True):
            chosen = [cell for cell in cells if cell.direction == direction]
            drawn += [_draw_loss(axes, cell, colors[cell.heuristics], study.resampling) for cell in chosen]
            axes.set(xscale="log", yscale="log")
        _limit_to_start(column[0], drawn)
        for axes in column:
            keep_crosses_inside(axes)
        column[0].set_title(f"{cells[0].pair.dataset_label}, test loss")
        column[-1].set_xlabel("Training time (s)")
        space_log_ticks(column[-1].xaxis)
        tables += drawn
    for axes, direction in zip(grid[:, 0], layout.directions, strict=True):
        axes.set_ylabel(textwrap.fill(layout.direction_label(direction), 16))
    crosses = any(line.get_marker() == "X" for axes in figure.axes for line in axes.lines)
    cross = Line2D([], [], marker="X", linestyle="", color="#555555", label="Median diverges")
    _add_legend(figure, layout, colors, [cross] if crosses else [])
    return figure, pd.concat(tables, ignore_index=True)


def heuristics_colors(config: StudyConfig) -> dict[str, Any]:
    """Return a color for every name of heuristics, the same in all factorials of a study."""
    names = list(dict.fromkeys(name for factorial in config.factorials.values() for name in factorial.heuristics))
    palette = sns.color_palette("tab10") if len(names) <= 10 else sns.color_palette("husl", len(names))
    return dict(zip(names, palette, strict=False))


def _ratios(cells: Sequence[Cell], resampling: Resampling) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "dataset": cell.pair.dataset,
                "direction": cell.direction,
                "heuristics": cell.heuristics,
                "measure": measure,
                **ratio._asdict(),
                "survived": survived_fraction(cell.pair.cube),
            }
            for cell in cells
            for measure, ratio in ratios_of(cell, resampling)
        ]
    )


def _draw_ratios(axes: Axes, numbers: pd.DataFrame, layout: FactorialConfig, colors: Mapping[str, Any]) -> None:
    """Draw a marker and an interval for each measure of each cell but the references, which are the line at 1."""
    reference, *others = layout.heuristics
    axes.axvline(1, color=colors[reference], linewidth=1.2, zorder=1)
    low, high = _limits(numbers)
    axes.set(xscale="log", xlim=(low, high))
    space_log_ticks(axes.xaxis)
    rows = {direction: height for height, direction in enumerate(layout.directions)}
    for height in list(rows.values())[1:]:
        axes.axhline(height - 0.5, color="#dddddd", linewidth=0.6)
    places = [(heuristics, measure) for heuristics in others for measure in MEASURES]
    offsets = dict(zip(places, np.linspace(-0.4, 0.4, len(places)), strict=True))
    for row in numbers[numbers["heuristics"] != reference].to_dict("records"):
        height = rows[row["direction"]] + offsets[row["heuristics"], row["measure"]]
        _draw_ratio(axes, row, height, colors[row["heuristics"]])
    labels = [layout.direction_label(direction) for direction in layout.directions]
    axes.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.4, -0.6))
    axes.grid(visible=False, axis="y")


def _draw_ratio(axes: Axes, row: Mapping[Any, Any], height: float, color: Any) -> None:
    low, high = axes.get_xlim()
    axes.plot(np.clip([row["lower"], row["upper"]], low, high), [height] * 2, color=color, linewidth=1.0)
    estimate, marker = row["estimate"], "o"
    if np.isnan(estimate):
        # Both medians are infinite: it could be anything.
        estimate, marker = 1.0, "X"
    elif not low <= estimate <= high:
        marker = ">" if estimate > high else "<"
    face = color if row["measure"] == "final" else "white"
    style = {"color": color, "markerfacecolor": face, "markersize": 3.6, "markeredgewidth": 0.9, "clip_on": False}
    axes.plot(np.clip(estimate, low, high), height, marker, **style)


def _limits(numbers: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of the axis of ratios: estimates that are not extreme are within, and what intervals fit."""
    estimates, ends = (numbers[names].to_numpy().ravel() for names in (["estimate"], ["lower", "upper"]))
    estimates = estimates[(estimates >= 1 / _WIDEST) & (estimates <= _WIDEST)]
    low, high = min(0.8, *estimates), max(1.25, *estimates)
    low, high = (bound(ends.clip(low / 2, 2 * high)) for bound in (np.min, np.max))
    margin = (high / low) ** 0.05
    return min(low, 0.8) / margin, max(high, 1.25) * margin


def _draw_loss(axes: Axes, cell: Cell, color: Any, resampling: Resampling) -> pd.DataFrame:
    cube = cell.pair.cube
    summary = median_over_seeds(cube["value"].sel(metric="test_loss"), resampling)
    draw_curve(axes, summary, "time", {"color": color, "linewidth": 1.1}, is_log=True)
    table = summary.to_dataframe().reset_index()[["time", "median", "mean", "std", "lower", "upper"]]
    names = {"dataset": cell.pair.dataset, "direction": cell.direction, "heuristics": cell.heuristics}
    return table.assign(**names, survived=survived_fraction(cube))


def _limit_to_start(axes: Axes, tables: Sequence[pd.DataFrame]) -> None:
    medians = [table["median"][np.isfinite(table["median"]) & (table["median"] > 0)] for table in tables]
    starts = [values.iloc[0] for values in medians if len(values)]
    if starts:
        limit_height(axes, pd.concat(medians), start=float(np.median(starts)))


def _measure_handles(numbers: pd.DataFrame) -> list[Line2D]:
    """Return the legend's entries for markers, those of ratios that have no place of their own where there are any."""
    style: dict[str, Any] = {"linestyle": "", "color": "#555555", "markersize": 3.6, "markeredgewidth": 0.9}
    handles = [
        Line2D([], [], marker="o", markerfacecolor="#555555" if name == "final" else "white", label=label, **style)
        for name, label in _MEASURE_LABELS.items()
    ]
    estimates = numbers["estimate"]
    if ((estimates > _WIDEST) | (estimates < 1 / _WIDEST)).any():
        handles.append(Line2D([], [], marker=">", label="Beyond the axis", **style))
    if estimates.isna().any():
        handles.append(Line2D([], [], marker="X", label="Both medians diverge", **style))
    return handles


def _add_legend(figure: Figure, layout: FactorialConfig, colors: Mapping[str, Any], handles: Sequence[Line2D]) -> None:
    lines = [Line2D([], [], color=colors[name], label=layout.heuristics_label(name)) for name in layout.heuristics]
    figure.legend(
        handles=[*lines, *handles], loc="outside lower center", ncols=4, handlelength=1.6, columnspacing=1.0, fontsize=7
    )
