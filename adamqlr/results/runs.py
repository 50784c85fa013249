"""Run files: what each seed of one job recorded, as recorded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from adamqlr.files import Kind, read_netcdf, write_netcdf
from adamqlr.training.history import History
from adamqlr.training.metrics import METRICS

# The attribute that says by a fingerprint what decided the runs, but for their seeds: the same in all files of a cube.
TRAINING = "training_fingerprint"
_PARAMETER_NAMES = ("x", "y", "z")


def metric_coordinates() -> dict[str, Any]:
    """Return the coordinates that describe the ``metric`` dimension."""
    names, metrics = list(METRICS), list(METRICS.values())
    return {
        "metric": ("metric", names, {"units": "1", "long_name": "name of the metric"}),
        "metric_units": ("metric", [m.units for m in metrics], {"units": "1", "long_name": "units of the metric"}),
        "metric_long_name": ("metric", [m.long_name for m in metrics], {"units": "1", "long_name": "meaning"}),
    }


def runs_dataset(histories: Sequence[History], attrs: Mapping[str, Any]) -> xr.Dataset:
    """Return histories as value(seed, record, metric), step and time(seed, record); shorter runs end in NaN and −1.

    Args:
        histories: One a seed.
        attrs: Provenance.
    """
    records = max(len(history.steps) for history in histories)
    values = np.full((len(histories), records, len(METRICS)), np.nan)
    steps = np.full((len(histories), records), -1, dtype=np.int64)
    times = np.full((len(histories), records), np.nan)
    for row, history in enumerate(histories):
        count = len(history.steps)
        values[row, :count], steps[row, :count], times[row, :count] = history.values, history.steps, history.times
    dataset = xr.Dataset(
        {
            "value": (("seed", "record", "metric"), values, {"units": "1", "long_name": "value of the metric"}),
            "step": (("seed", "record"), steps, {"units": "1", "long_name": "optimizer steps taken"}),
            "time": (("seed", "record"), times, {"units": "s", "long_name": "training time"}),
            "records": ("seed", [len(h.steps) for h in histories], {"units": "1", "long_name": "number of records"}),
            "diverged": ("seed", [h.diverged for h in histories], {"units": "1", "long_name": "whether it diverged"}),
            "evaluation_seconds": (
                "seed",
                [h.evaluation_seconds for h in histories],
                {"units": "s", "long_name": "time of an evaluation of all sets, not in the training time"},
            ),
        },
        coords={
            "seed": ("seed", [h.seed for h in histories], {"units": "1", "long_name": "seed of the run"}),
            "record": ("record", np.arange(records), {"units": "1", "long_name": "number of the record"}),
            **metric_coordinates(),
        },
        attrs=dict(attrs),
    )
    if all(history.parameters for history in histories):
        size = len(histories[0].parameters[0])
        trajectory = np.full((len(histories), records, size), np.nan)
        for row, history in enumerate(histories):
            trajectory[row, : len(history.parameters)] = history.parameters
        dataset = dataset.assign_coords(
            parameter=("parameter", list(_PARAMETER_NAMES[:size]), {"units": "1", "long_name": "parameter"})
        )
        attributes = {"units": "1", "long_name": "value of the parameter"}
        dataset["parameters"] = (("seed", "record", "parameter"), trajectory, attributes)
    return dataset


def write_runs(path: Path, histories: Sequence[History], attrs: Mapping[str, Any]) -> None:
    """Write a run file."""
    write_netcdf(runs_dataset(histories, attrs), path, Kind.RUNS)


def read_runs(path: Path) -> xr.Dataset:
    """Return what a run file holds, NaN for what version 0.1 did not record.

    Raises:
        UserError: It is not one.
    """
    runs = read_netcdf(path, Kind.RUNS)
    if "evaluation_seconds" in runs:
        return runs
    # Version 0.1 recorded fewer metrics, and not what evaluation takes.
    unknown = ("seed", np.full(runs.sizes["seed"], np.nan), {"units": "s", "long_name": "time of an evaluation"})
    known = runs.drop_vars(["metric_units", "metric_long_name"]).reindex(metric=list(METRICS))
    return known.assign_coords(metric_coordinates()).assign(evaluation_seconds=unknown).assign_attrs(runs.attrs)
