"""Sensitivity studies: what one hyperparameter changes, other things being equal."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from adamqlr.figures.limits import limit_height
from adamqlr.figures.panels import Panel, draw_curve, keep_crosses_inside, loss_panel
from adamqlr.figures.style import TEXT_WIDTH, space_log_ticks
from adamqlr.results.statistics import median_over_seeds, survived_fraction
from adamqlr.results.study import Pair, Study

_COLORS = plt.get_cmap("viridis")


def draw(study: Study, suite: str, sweep: str, parameter: str) -> tuple[Figure, pd.DataFrame]:
    """Draw training and test loss of every value: on the left against time, on the right at the end.

    Args:
        study: The study's results.
        suite: ``sensitivity``.
        sweep: The sensitivity study's name.
        parameter: The name of what it varies, for labels.

    Returns:
        The figure, and the losses at the end: a row for each metric and value.
    """
    cubes = dict(sorted(((float(name), leaf.to_dataset()) for name, leaf in study.tree[suite][sweep].children.items())))
    first = next(iter(cubes.values()))
    norm = _norm(list(cubes))
    figure, grid = plt.subplots(2, 2, figsize=(TEXT_WIDTH, 3.9), sharex="col", sharey="row", width_ratios=(1.15, 1))
    tables = []
    for row, part in zip(grid, ("train", "test"), strict=True):
        panel = loss_panel(part, Pair(first.attrs["dataset"], study.spec(first.attrs["optimizer"]), first))
        curves = {value: median_over_seeds(_values(cube, panel), study.resampling) for value, cube in cubes.items()}
        for value, curve in curves.items():
            style = {"color": _COLORS(norm(value)), "linewidth": 1.0}
            draw_curve(row[0], curve, "time", style, is_log=panel.scale == "log")
        final = pd.DataFrame([_final(value, curve, cubes[value]) for value, curve in curves.items()])
        _draw_final(row[1], final, norm)
        row[0].set(xscale="log", yscale=panel.scale, ylabel=panel.label)
        medians = [curve["median"].values for curve in curves.values()]
        start = float(np.median([values[0] for values in medians]))
        limit_height(row[0], np.concatenate(medians), panel.scale, start)
        keep_crosses_inside(row[0])
        tables.append(final.assign(sweep=sweep, optimizer=first.attrs["optimizer"], metric=panel.metric))
    grid[1, 0].set_xlabel("Training time (s)")
    grid[1, 1].set(xlabel=parameter, xscale="log" if isinstance(norm, LogNorm) else "linear")
    bar = figure.colorbar(ScalarMappable(norm, _COLORS), ax=grid, label=parameter, aspect=40, pad=0.01)
    space_log_ticks(grid[1, 0].xaxis)
    if isinstance(norm, LogNorm):
        space_log_ticks(grid[1, 1].xaxis)
        space_log_ticks(bar.ax.yaxis)
    figure.suptitle(f"{first.attrs['optimizer_label']} on {first.attrs['dataset_label']}", fontsize=8.5)
    return figure, pd.concat(tables, ignore_index=True)


def _norm(values: list[float]) -> Normalize:
    return (LogNorm if min(values) > 0 else Normalize)(min(values), max(values))


def _values(cube: xr.Dataset, panel: Panel) -> xr.DataArray:
    return cube["value"].sel(metric=panel.metric)


def _final(value: float, curve: xr.Dataset, cube: xr.Dataset) -> dict[str, Any]:
    last = curve.isel(time=-1)
    summary = {name: float(last[name]) for name in ("median", "mean", "std", "lower", "upper")}
    return {"value": value, **summary, "survived": survived_fraction(cube)}


def _draw_final(axes: Axes, final: pd.DataFrame, norm: Normalize) -> None:
    finite = final[np.isfinite(final["median"])]
    axes.plot(finite["value"], finite["median"], color="#999999", linewidth=0.8, zorder=1)
    for row in finite.itertuples():
        color = _COLORS(norm(row.value))
        bounds = [bound if np.isfinite(bound) else row.median for bound in (row.lower, row.upper)]
        axes.plot([row.value] * 2, bounds, color=color, linewidth=1.4)
        axes.plot(row.value, row.median, "o", color=color, markersize=4)
    for row in final[~np.isfinite(final["median"])].itertuples():
        axes.axvline(row.value, color=_COLORS(norm(row.value)), linewidth=0.8, linestyle=":")
        axes.plot(row.value, 0.97, "X", color="#555555", markersize=5, transform=axes.get_xaxis_transform())
    for row in final[(final["survived"] < 1) & np.isfinite(final["median"])].itertuples():
        text = f"{100 * row.survived:.0f} %"
        axes.annotate(text, (row.value, row.median), xytext=(0, 5), textcoords="offset points", fontsize=6, ha="center")
