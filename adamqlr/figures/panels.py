"""Grids of panels: a dataset each column, medians over seeds as lines and their uncertainty as bands."""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adamqlr.figures.cubes import Pair, by_dataset
from adamqlr.figures.style import TEXT_WIDTH, line_style, set_log_limits
from adamqlr.results.statistics import Resampling, median_over_seeds, survived_fraction

COLUMNS = 3
ROW_HEIGHT = 1.75


class Panel(NamedTuple):
    """What one row of panels shows.

    Attributes:
        metric: A metric's name.
        label: The vertical axis' label.
        scale: The vertical axis' scale.
        limits: The vertical axis' limits, where they do not follow the curves.
        guides: Heights of horizontal lines.
    """

    metric: str
    label: str
    scale: str
    limits: tuple[float, float] | None = None
    guides: tuple[float, ...] = ()


def loss_panel(part: str, pair: Pair) -> Panel:
    """Return the panel of the ``train`` or ``test`` loss."""
    return Panel(f"{part}_loss", f"{_PART_NAMES[part]} loss", "log")


def performance_panel(part: str, pair: Pair) -> Panel:
    """Return the panel of what a pair is judged by: accuracy for classes, loss for real targets."""
    if pair.cube.attrs["loss"] != "cross_entropy":
        return loss_panel(part, pair)
    return Panel(f"{part}_accuracy", f"{_PART_NAMES[part]} accuracy", "linear")


_PART_NAMES = {"train": "Training", "test": "Test"}


def draw_grid(
    pairs: Sequence[Pair], resampling: Resampling, axis: str, rows: Sequence[Callable[[Pair], Panel]]
) -> tuple[Figure, pd.DataFrame]:
    """Draw every dataset's curves against ``time`` or ``step``, one row of panels for each of ``rows``."""
    groups = by_dataset([pair for pair in pairs if not pair.is_trajectory])
    columns = min(COLUMNS, len(groups))
    blocks = -(-len(groups) // columns)
    height = ROW_HEIGHT * blocks * len(rows) + 0.9
    figure, grid = plt.subplots(blocks * len(rows), columns, figsize=(TEXT_WIDTH, height), squeeze=False)
    tables = []
    for number, group in enumerate(groups.values()):
        block, column = divmod(number, columns)
        for row, panel_of in enumerate(rows):
            axes, panel = grid[block * len(rows) + row, column], panel_of(group[0])
            tables.append(_draw_panel(axes, group, panel, axis, resampling))
            if row == 0:
                title_with_divergence(axes, group)
            axes.set_xlabel({"time": "Training time (s)", "step": "Step"}[axis] if row == len(rows) - 1 else "")
    for unused in range(len(groups), blocks * columns):
        for row in range(len(rows)):
            grid[(unused // columns) * len(rows) + row, unused % columns].set_axis_off()
    add_legend(figure, [pair for group in groups.values() for pair in group])
    return figure, pd.concat(tables, ignore_index=True)


def _draw_panel(axes: Axes, pairs: Sequence[Pair], panel: Panel, axis: str, resampling: Resampling) -> pd.DataFrame:
    variable = {"time": "value", "step": "value_by_step"}[axis]
    tables = []
    for pair in pairs:
        values = pair.cube[variable].sel(metric=panel.metric)
        if axis == "step":
            values = values.isel(step=slice(1, None))
        if panel.metric == "lr":
            values = abs(values)
        if not values.notnull().any():
            continue
        summary = median_over_seeds(values, resampling)
        draw_curve(axes, summary, axis, line_style(pair.optimizer), is_log=panel.scale == "log")
        table = summary.to_dataframe().reset_index()[[axis, "median", "mean", "std", "lower", "upper"]]
        names = {"dataset": pair.dataset, "optimizer": pair.optimizer, "metric": panel.metric}
        tables.append(table.assign(**names, survived=survived_fraction(pair.cube)))
    axes.set(xscale="log", yscale=panel.scale, ylabel=panel.label)
    for height in panel.guides:
        axes.axhline(height, color="#555555", linewidth=0.5, linestyle=(0, (4, 3)))
    if not tables:
        return pd.DataFrame()
    _limit(axes, pd.concat(tables), panel)
    return pd.concat(tables, ignore_index=True)


def draw_curve(axes: Axes, summary: xr.Dataset, axis: str, style: dict[str, Any], is_log: bool) -> None:
    """Draw a median and its band; a cross marks the last finite point of a median that becomes infinite."""
    positions, center = summary[axis].values, summary["median"].values
    drawn = np.isfinite(center) & ((center > 0) | (not is_log))
    axes.plot(positions[drawn], center[drawn], **style)
    lower, upper = (np.where(np.isfinite(summary[name]), summary[name], center) for name in ("lower", "upper"))
    axes.fill_between(positions[drawn], lower[drawn], upper[drawn], color=style["color"], alpha=0.18, linewidth=0)
    if np.isinf(center).any() and drawn.any():
        last = np.flatnonzero(drawn)[-1]
        axes.plot(positions[last], center[last], "X", color=style["color"], markersize=6, markeredgecolor="white")


def _limit(axes: Axes, table: pd.DataFrame, panel: Panel) -> None:
    """Show every curve's course, but not the heights to which runs jump before they diverge."""
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
        return
    finite = table[np.isfinite(table["median"]) & ((table["median"] > 0) | (panel.scale != "log"))]
    if finite.empty:
        return
    low, high = finite["median"].min(), finite["median"].max()
    if panel.metric.endswith("_loss"):
        first = finite.groupby("optimizer")["median"].first().median()
        high = min(high, 3 * first)
        low = max(low, high * 1e-6)
    if panel.scale == "log":
        set_log_limits(axes, low, high)
    elif high > low:
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))


def title_with_divergence(axes: Axes, pairs: Sequence[Pair]) -> None:
    """Set a dataset's name as title, with how many of which optimizer's runs diverged below it."""
    title = pairs[0].dataset_label
    failed = [
        f"{pair.optimizer_label} {int(pair.cube['diverged'].sum())}/{pair.cube.sizes['seed']}"
        for pair in pairs
        if bool(pair.cube["diverged"].any())
    ]
    axes.set_title(title)
    if failed:
        note = "\n".join(textwrap.wrap("diverged: " + ", ".join(failed), 38))
        place: dict[str, Any] = {"xycoords": "axes fraction", "ha": "center", "va": "bottom"}
        axes.annotate(note, (0.5, 1.01), fontsize=6, color="#555555", **place)
        axes.set_title(title, pad=6 + 7 * (note.count("\n") + 1))


def add_legend(figure: Figure, pairs: Sequence[Pair], with_divergence: bool = True) -> None:
    """Put one entry for each optimizer below the panels, and one for crosses where there may be some."""
    labels = {pair.optimizer: pair.optimizer_label for pair in pairs}
    handles = [Line2D([], [], label=label, **line_style(key)) for key, label in labels.items()]
    if with_divergence and any(bool(pair.cube["diverged"].any()) for pair in pairs):
        handles.append(Line2D([], [], marker="X", linestyle="", color="#555555", label="median diverges"))
    columns = min(5, len(handles))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, handlelength=2.2, columnspacing=1.0, fontsize=7
    )
