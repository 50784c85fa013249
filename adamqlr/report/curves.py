"""The curves of one dataset in one suite, thinned to numbers that a page can carry."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from adamqlr.figures.heights import visible_heights
from adamqlr.results.clocks import has_evaluation_times, with_evaluation
from adamqlr.results.statistics import Resampling, median_over_seeds, survived_fraction
from adamqlr.results.study import Pair

# What the explorer offers, of what runs record.
METRICS = (
    "test_loss",
    "validation_loss",
    "train_loss",
    "test_accuracy",
    "validation_accuracy",
    "train_accuracy",
    "lr",
    "damping",
    "rho",
    "sharpness",
    "update_norm",
)
AXES = {"time": "Training time (s)", "evaluation": "Training and evaluation time (s)", "step": "Steps"}
# A curve has at least so many points; of medians, which are smooth, twice as many are kept as of runs.
_FEWEST, _MOST = 16, 100
_DIGITS = 4
_LINEAR = ("test_accuracy", "validation_accuracy", "train_accuracy", "rho")


def curves_of(pairs: Sequence[Pair], resampling: Resampling, numbers: int) -> dict[str, Any]:
    """Return all curves of one dataset in one suite as plain values.

    Args:
        pairs: The dataset's cubes.
        resampling: How the uncertainty of medians is estimated.
        numbers: About how many numbers to keep.

    Returns:
        ``optimizers``, by key: ``medians`` by axis, with positions ``x`` and, by metric, median, lower and upper end of
        the band; ``runs``, with ``time``, ``steps`` of each seed and, by metric, a row for each seed. ``heights``, by
        metric: the scale, and what of it is to be seen. Numbers that are not finite are text or None.
    """
    metrics = {pair.optimizer: _metrics(pair.cube) for pair in pairs}
    lines = sum(len(metrics[pair.optimizer]) * (pair.cube.sizes["seed"] + 6 * len(AXES)) for pair in pairs)
    points = int(np.clip(numbers // max(lines, 1), _FEWEST, _MOST))
    optimizers = {pair.optimizer: _of_pair(pair, metrics[pair.optimizer], resampling, points) for pair in pairs}
    shown = [metric for metric in METRICS if any(metric in known for known in metrics.values())]
    return {"optimizers": optimizers, "heights": {metric: _heights(metric, optimizers) for metric in shown}}


def _metrics(cube: xr.Dataset) -> list[str]:
    values = cube["value_by_step"]
    known = [metric for metric in METRICS if metric in values["metric"]]
    return [metric for metric in known if bool(values.sel(metric=metric).notnull().any())]


def _of_pair(pair: Pair, metrics: list[str], resampling: Resampling, points: int) -> dict[str, Any]:
    # Read once, not once for every row.
    cube = pair.cube.load()
    return {
        "hyperparameters": _settings(cube),
        "survived": survived_fraction(cube),
        "medians": {
            axis: _medians(values.sel(metric=metrics), resampling, 2 * points) for axis, values in _on_axes(cube)
        },
        "runs": _runs(cube, metrics, points),
    }


def _on_axes(cube: xr.Dataset) -> list[tuple[str, xr.DataArray]]:
    # On a logarithmic axis there is no step 0.
    on_axes = [("time", cube["value"]), ("step", cube["value_by_step"].isel(step=slice(1, None)))]
    if has_evaluation_times(cube):
        on_axes.append(("evaluation", with_evaluation(cube)["value"]))
    return on_axes


def _medians(values: xr.DataArray, resampling: Resampling, points: int) -> dict[str, Any]:
    axis = next(str(name) for name in values.dims if name in ("time", "step"))
    thinned = values.isel({axis: _thinned(values.sizes[axis], points)})
    summary = median_over_seeds(thinned, resampling)[["median", "lower", "upper"]]
    rows = summary.to_dataarray("statistic").transpose("metric", "statistic", axis).values
    of_metric = {
        str(metric): [_plain(row) for row in rows_of_metric]
        for metric, rows_of_metric in zip(values["metric"].values, rows, strict=True)
    }
    return {"x": _plain(thinned[axis]), "values": of_metric}


def _runs(cube: xr.Dataset, metrics: list[str], points: int) -> dict[str, Any]:
    kept = cube[["value", "step_at_time"]].isel(time=_thinned(cube.sizes["time"], points))
    # What is held after a run's end is no longer its course.
    going = kept["time"].shift(time=1, fill_value=0.0) < cube["final_time"]
    values = kept["value"].where(going).sel(metric=metrics).transpose("metric", "seed", "time").values
    return {
        "seeds": cube["seed"].values.tolist(),
        "time": _plain(kept["time"]),
        "steps": kept["step_at_time"].transpose("seed", "time").values.astype(int).tolist(),
        "evaluation": _plain(cube["evaluation_seconds"]) if has_evaluation_times(cube) else None,
        "values": {metric: [_plain(row) for row in rows] for metric, rows in zip(metrics, values, strict=True)},
    }


def _thinned(size: int, points: int) -> NDArray[np.int64]:
    """Return which of so many points to keep, both ends among them; grids are geometric, and so is what is left."""
    return np.unique(np.linspace(0, size - 1, min(size, points)).round().astype(np.int64))


def _settings(cube: xr.Dataset) -> str:
    settings = json.loads(cube.attrs["hyperparameters"])
    texts = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in settings.values())
    return ", ".join(f"{name} {text}" for name, text in zip(settings, texts, strict=True))


def _heights(metric: str, optimizers: dict[str, Any]) -> dict[str, Any]:
    rows = [
        [value for value in curve["values"][metric][0] if isinstance(value, float)]
        for optimizer in optimizers.values()
        for curve in optimizer["medians"].values()
        if metric in curve["values"]
    ]
    medians = [value for row in rows for value in row]
    is_log = metric not in _LINEAR and min(medians, default=0.0) >= 0
    start = float(np.median([row[0] for row in rows if row])) if metric.endswith("_loss") and medians else None
    scale = "log" if is_log else "linear"
    return {"scale": scale, "visible": visible_heights(medians, scale, start)}


def _plain(values: ArrayLike) -> list[float | str | None]:
    """Return numbers rounded; ±∞ as text, as JSON has no such number, and None for what is not there."""
    numbers = np.asarray(values, dtype=float).tolist()
    return [float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else _named(number) for number in numbers]


def _named(number: float) -> str | None:
    if math.isnan(number):
        return None
    return "∞" if number > 0 else "−∞"
