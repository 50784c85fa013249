"""What a tuning budget buys: the best objective against the number of trials spent."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adamqlr.figures.limits import limit_height
from adamqlr.figures.lines import line_style
from adamqlr.figures.panels import COLUMNS, add_legend
from adamqlr.figures.style import TEXT_WIDTH, space_log_ticks
from adamqlr.results.statistics import Resampling
from adamqlr.results.study import Study
from adamqlr.study.names import TUNING
from adamqlr.study.optimizers import OptimizerSpec

Array = NDArray[np.float64]

_LABELS = {"train_loss": "Best training loss", "validation_loss": "Best validation loss"}


def draw(study: Study, suite: str) -> tuple[Figure, pd.DataFrame]:
    """Draw, for each dataset and optimizer, the objective of the trial that a search of n trials would choose.

    Trials are independent draws, so that any order of them might have happened: lines are medians over random orders.

    Returns:
        The figure, and its numbers: a row for each dataset, optimizer and count of trials. They have the 2.5 and 97.5
        percentiles as well, which would hide each other as bands.
    """
    hidden = study.config.factorial_optimizers
    nodes = study.tree[TUNING][suite].children.items()
    datasets = {key: [pair for pair in study.ordered(node) if pair[0].key not in hidden] for key, node in nodes}
    datasets = {key: searches for key, searches in datasets.items() if searches}
    columns = min(COLUMNS, len(datasets))
    rows = -(-len(datasets) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(TEXT_WIDTH, 2.1 * rows + 0.7), squeeze=False)
    tables: list[pd.DataFrame] = []
    specs: list[OptimizerSpec] = []
    for axes, (dataset, searches) in zip(grid.flat, datasets.items(), strict=False):
        for spec, trials in searches:
            specs.append(spec)
            table = _curve(trials, study.resampling).assign(dataset=dataset, optimizer=spec.key)
            axes.plot(table["trials"], table["median"].where(np.isfinite(table["median"])), **line_style(spec))
            tables.append(table)
            axes.set_title(trials.attrs["dataset_label"])
            axes.set_ylabel(_LABELS[trials.attrs["objective"]])
        axes.set(xlabel="Trials", xscale="log", yscale="log")
        space_log_ticks(axes.xaxis)
        _limit_to_progress(axes, pd.concat([table for table in tables if table["dataset"].iloc[0] == dataset]))
    for axes in grid.flat[len(datasets) :]:
        axes.set_axis_off()
    add_legend(figure, specs)
    return figure, pd.concat(tables, ignore_index=True)


def best_so_far(values: Array, orders: NDArray[np.int64], diverged: NDArray[np.bool_]) -> Array:
    """Return the objective that a search would choose after each of its trials.

    As in the search itself, this is the lowest value at the last rung that any trial has reached with a finite value,
    of those that did not diverge later if there are any; +inf before there is one.

    Args:
        values: The objective, of shape (trial, rung); NaN or ±inf where a rung was not reached.
        orders: Orders of the trials, of shape (orders, trial).
        diverged: Which trials diverged, of shape (trial,).

    Returns:
        Shape (orders, trial).
    """
    finite = np.where(np.isfinite(values), values, np.inf)
    best = _lowest_at_last_rung(np.where(diverged[:, None], np.inf, finite), orders)
    return np.where(np.isfinite(best), best, _lowest_at_last_rung(finite, orders))


def _lowest_at_last_rung(finite: Array, orders: NDArray[np.int64]) -> Array:
    lowest = np.minimum.accumulate(finite[orders], axis=1)
    reached = np.isfinite(lowest)
    last = finite.shape[1] - 1 - np.argmax(reached[..., ::-1], axis=-1)
    return np.take_along_axis(lowest, last[..., None], axis=-1)[..., 0]


def _curve(trials: xr.Dataset, resampling: Resampling) -> pd.DataFrame:
    values = trials["value"].transpose("trial", "rung").values
    diverged = (trials["state"] == "diverged").values
    generator = np.random.default_rng(resampling.seed)
    orders = np.array([generator.permutation(len(values)) for _ in range(resampling.resamples)])
    best = best_so_far(values, orders, diverged)
    lower, median, upper = np.quantile(best, [0.025, 0.5, 0.975], axis=0, method="inverted_cdf")
    spent = np.arange(1, len(values) + 1)
    return pd.DataFrame({"trials": spent, "median": median, "lower": lower, "upper": upper})


def _limit_to_progress(axes: Axes, table: pd.DataFrame) -> None:
    """Leave the heights out from which the first trials come down."""
    finite = table["median"].where(np.isfinite(table["median"]) & (table["median"] > 0))
    limit_height(axes, finite, bounds=(0.0, float(finite.quantile(0.98))))
