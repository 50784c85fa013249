"""The two clocks of a cube: training alone, and training with an evaluation after every step."""

import numpy as np
import xarray as xr


def has_evaluation_times(cube: xr.Dataset) -> bool:
    """Tell whether a cube says what evaluation takes, as those of version 0.1 do not."""
    return "evaluation_seconds" in cube and bool(cube["evaluation_seconds"].notnull().all())


def with_evaluation(cube: xr.Dataset) -> xr.Dataset:
    """Return a cube's values on the clock of the paper's code, which evaluates after every step while time runs.

    A run's time is then its training time plus the steps taken times ``evaluation_seconds``. The grid is as fine as
    before, from the earliest first step to the latest end; between records the last value is held.

    Args:
        cube: With ``step_at_time`` and ``evaluation_seconds``.
    """
    evaluation = cube["evaluation_seconds"].values[:, None]
    times = cube["time"].values[None, :] + cube["step_at_time"].values * evaluation
    first = times[cube["step_at_time"].values > 0].min(initial=times[:, -1].max())
    grid = np.geomspace(first, times[:, -1].max(), cube.sizes["time"])
    values = cube["value"].transpose("seed", "time", "metric").values
    found = [np.maximum(np.searchsorted(of_run, grid, side="right") - 1, 0) for of_run in times]
    held = np.stack([run[indices] for run, indices in zip(values, found, strict=True)])
    attributes = {"units": "s", "long_name": "time of training and of an evaluation after every step"}
    return xr.Dataset(
        {"value": (("seed", "time", "metric"), held, cube["value"].attrs), "diverged": cube["diverged"]},
        coords={"seed": cube["seed"], "time": ("time", grid, attributes), "metric": cube["metric"]},
        attrs=cube.attrs,
    )
