"""Grids of panels: a dataset each column, medians over seeds as lines and their uncertainty as bands."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from adamqlr.figures.limits import limit_height, limit_signed_height
from adamqlr.figures.lines import line_style
from adamqlr.figures.style import TEXT_WIDTH, space_log_ticks
from adamqlr.results.judged import is_classification
from adamqlr.results.statistics import Resampling, median_over_seeds, survived_fraction
from adamqlr.results.study import Pair, by_dataset
from adamqlr.study.optimizers import OptimizerSpec

COLUMNS = 3
ROW_HEIGHT = 1.75
_LEGEND_COLUMNS = 5
_CROSS = "X"


class Panel(NamedTuple):
    """What one row of panels shows.

    Attributes:
        metric: A metric's name.
        label: The vertical axis' label.
        scale: The vertical axis' scale; ``signed`` is logarithmic, and where something drawn is negative, symmetric.
        limits: The vertical axis' limits, where they do not follow the curves.
        bounds: What the vertical axis never goes beyond, where it follows the curves.
        guides: Heights of horizontal lines.
    """

    metric: str
    label: str
    scale: str
    limits: tuple[float, float] | None = None
    bounds: tuple[float, float] = (-np.inf, np.inf)
    guides: tuple[float, ...] = ()


def loss_panel(part: str, pair: Pair) -> Panel:
    """Return the panel of the ``train`` or ``test`` loss."""
    return Panel(f"{part}_loss", f"{_PART_NAMES[part]} loss", "log")


def performance_panel(part: str, pair: Pair) -> Panel:
    """Return the panel of what a pair is judged by: accuracy for classes, loss for real targets."""
    if not is_classification(pair.cube):
        return loss_panel(part, pair)
    return Panel(f"{part}_accuracy", f"{_PART_NAMES[part]} accuracy", "linear")


_PART_NAMES = {"train": "Training", "test": "Test"}


def draw_grid(
    pairs: Sequence[Pair],
    resampling: Resampling,
    axis: str,
    rows: Sequence[Callable[[Pair], Panel]],
    axis_label: str | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """Draw every dataset's curves against ``time`` or ``step``, one row of panels for each of ``rows``.

    The panels of a single dataset stand side by side.

    Returns:
        The figure, and its curves: a row for each dataset, optimizer, metric and time or step.
    """
    groups = by_dataset([pair for pair in pairs if not pair.is_trajectory])
    if not groups:
        return draw_nothing("No run here has recorded what this figure shows.")
    is_single = len(groups) == 1
    figure, grid = _panels(len(groups), len(rows))
    tables = []
    for column, group in zip(grid, groups.values(), strict=True):
        for axes, panel_of in zip(column, rows, strict=True):
            tables.append(_draw_panel(axes, group, panel_of(group[0]), axis, resampling))
            space_log_ticks(axes.xaxis)
        if is_single:
            figure.suptitle("\n".join([group[0].dataset_label, *_diverged(group, 100)]), fontsize=8)
        else:
            _title_with_divergence(column[0], group, 38 if len(groups) >= COLUMNS else 60)
        for axes in column if is_single else column[-1:]:
            axes.set_xlabel(axis_label or {"time": "Training time (s)", "step": "Step"}[axis])
    add_legend(figure, [pair.spec for group in groups.values() for pair in group])
    return figure, pd.concat(tables, ignore_index=True)


def draw_nothing(reason: str) -> tuple[Figure, pd.DataFrame]:
    """Return a figure that says why it is empty, and no numbers: the study's other figures are not to wait for it."""
    figure, axes = plt.subplots(figsize=(TEXT_WIDTH, 0.6))
    axes.set_axis_off()
    axes.text(0.5, 0.5, reason, ha="center", va="center")
    return figure, pd.DataFrame({"dataset": []})


def _panels(groups: int, rows: int) -> tuple[Figure, NDArray[np.object_]]:
    """Return a figure and its panels, of shape (groups, rows)."""
    columns = min(COLUMNS, groups)
    blocks = -(-groups // columns)
    shape = (1, rows) if groups == 1 else (blocks * rows, columns)
    height = (2.1 if groups == 1 else ROW_HEIGHT * shape[0]) + 0.9
    figure, grid = plt.subplots(*shape, figsize=(TEXT_WIDTH, height), squeeze=False)
    panels = grid.reshape(blocks, rows, columns).swapaxes(1, 2).reshape(-1, rows)
    for axes in panels[groups:].flat:
        axes.set_axis_off()
    return figure, panels[:groups]


def _draw_panel(axes: Axes, pairs: Sequence[Pair], panel: Panel, axis: str, resampling: Resampling) -> pd.DataFrame:
    variable = {"time": "value", "step": "value_by_step"}[axis]
    summaries = []
    for pair in pairs:
        values = pair.cube[variable].sel(metric=panel.metric)
        if axis == "step":
            values = values.isel(step=slice(1, None))
        if values.notnull().any():
            summaries.append((pair, median_over_seeds(values, resampling)))
    if panel.scale == "signed":
        panel = resolve_sign(panel, [summary for _, summary in summaries])
    tables = []
    for pair, summary in summaries:
        draw_curve(axes, summary, axis, line_style(pair.spec), is_log=panel.scale == "log")
        table = summary.to_dataframe().reset_index()[[axis, "median", "mean", "std", "lower", "upper"]]
        names = {"dataset": pair.dataset, "optimizer": pair.optimizer, "metric": panel.metric}
        tables.append(table.assign(**names, survived=survived_fraction(pair.cube)))
    axes.set(xscale="log", yscale=panel.scale, ylabel=panel.label)
    for height in panel.guides:
        axes.axhline(height, color="#555555", linewidth=0.5, linestyle=(0, (4, 3)))
    if not tables:
        return pd.DataFrame()
    _limit(axes, pd.concat(tables), panel)
    keep_crosses_inside(axes)
    return pd.concat(tables, ignore_index=True)


def resolve_sign(panel: Panel, summaries: Sequence[xr.Dataset]) -> Panel:
    """Return a ``signed`` panel as ``symlog`` where a median or its band is negative, else as ``log``.

    A symmetric axis reaches as far down as up.
    """
    is_negative = any(bool((summary[name] < 0).any()) for summary in summaries for name in ("median", "lower"))
    if not is_negative:
        return panel._replace(scale="log")
    return panel._replace(scale="symlog", bounds=(-panel.bounds[1], panel.bounds[1]))


def draw_curve(axes: Axes, summary: xr.Dataset, axis: str, style: dict[str, Any], is_log: bool) -> None:
    """Draw a median and its band; a cross marks the last finite point of a median that becomes infinite."""
    positions, center = summary[axis].values, summary["median"].values
    drawn = np.isfinite(center) & ((center > 0) | (not is_log))
    axes.plot(positions[drawn], center[drawn], **style)
    lower, upper = (np.where(np.isfinite(summary[name]), summary[name], center) for name in ("lower", "upper"))
    axes.fill_between(positions[drawn], lower[drawn], upper[drawn], color=style["color"], alpha=0.18, linewidth=0)
    if np.isinf(center).any() and drawn.any():
        last = np.flatnonzero(drawn)[-1]
        axes.plot(positions[last], center[last], _CROSS, color=style["color"], markersize=6, markeredgecolor="white")


def keep_crosses_inside(axes: Axes) -> None:
    """Move crosses beyond the vertical axis' limits to its ends."""
    for line in axes.lines:
        if line.get_marker() == _CROSS:
            line.set(ydata=np.clip(line.get_ydata(), *axes.get_ylim()), clip_on=False)


def _limit(axes: Axes, table: pd.DataFrame, panel: Panel) -> None:
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
        return
    if panel.scale == "symlog":
        limit_signed_height(axes, table["median"], table["lower"], panel.bounds)
        return
    medians, start = table["median"].where(np.isfinite(table["median"])), None
    if panel.metric.endswith("_loss"):
        start = float(medians.where(medians > 0).groupby(table["optimizer"]).first().median())
    limit_height(axes, medians, panel.scale, start, panel.bounds)


def _title_with_divergence(axes: Axes, pairs: Sequence[Pair], width: int) -> None:
    """Set a dataset's name as title, with how many of which optimizer's runs diverged below it."""
    lines = _diverged(pairs, width)
    axes.set_title(pairs[0].dataset_label, pad=6 + 7 * len(lines))
    place: dict[str, Any] = {"xycoords": "axes fraction", "ha": "center", "va": "bottom"}
    axes.annotate("\n".join(lines), (0.5, 1.01), fontsize=6, color="#555555", **place)


def _diverged(pairs: Sequence[Pair], width: int) -> list[str]:
    """Say how many of which optimizer's runs diverged, in lines of so many characters; none if none did."""
    failed = [
        f"{pair.optimizer_label} {int(pair.cube['diverged'].sum())}/{pair.cube.sizes['seed']}".replace(" ", "\u00a0")
        for pair in pairs
        if bool(pair.cube["diverged"].any())
    ]
    lines = textwrap.wrap("diverged: " + ", ".join(failed), width) if failed else []
    return [line.replace("\u00a0", " ") for line in lines]


def add_legend(figure: Figure, optimizers: Iterable[OptimizerSpec]) -> None:
    """Put an entry for each optimizer below the panels, in rows of like length, and one for crosses if there are any.

    Args:
        figure: The figure, drawn.
        optimizers: What is drawn; those that appear several times get one entry.
    """
    distinct = {spec.key: spec for spec in optimizers}
    handles = [Line2D([], [], label=spec.label, **line_style(spec)) for spec in distinct.values()]
    if any(line.get_marker() == _CROSS for axes in figure.axes for line in axes.lines):
        handles.append(Line2D([], [], marker=_CROSS, linestyle="", color="#555555", label="median diverges"))
    for rows in range(-(-len(handles) // _LEGEND_COLUMNS), len(handles) + 1):
        columns = -(-len(handles) // rows)
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, handlelength=2.2, columnspacing=1.0, fontsize=7
        )
        # How wide it is depends on its labels.
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()
