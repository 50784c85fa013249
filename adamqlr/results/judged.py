"""What a run is judged by, as it ends and where it should have stopped."""

import numpy as np
import xarray as xr

from adamqlr.results.repetitions import Runs


def is_classification(cube: xr.Dataset | Runs) -> bool:
    """Tell whether targets are classes."""
    return bool(cube.attrs["loss"] == "cross_entropy")


def measure_of(cube: xr.Dataset | Runs) -> str:
    """Return the name of what runs are judged by."""
    return "test error" if is_classification(cube) else "test loss"


def performance(cube: xr.Dataset, time: float | None = None) -> xr.DataArray:
    """Return what each run is judged by, the lower the better: test error of classes, test loss of real targets.

    A run that has diverged counts as +inf.

    Args:
        cube: A cube.
        time: Training seconds after which to look: at the end of runs that have ended by then, else at the last point
            of the time grid before. At the end of all if not given.

    Returns:
        Shape (seed,).
    """
    at = cube["value"].isel(time=-1, drop=True)
    if time is not None:
        index = max(0, int(np.searchsorted(cube["time"].values, time, side="right")) - 1)
        at = xr.where(cube["final_time"] <= time, at, cube["value"].isel(time=index, drop=True))
    if is_classification(cube):
        return 1 - at.sel(metric="test_accuracy", drop=True)
    return at.sel(metric="test_loss", drop=True)


def at_lowest_validation_loss(cube: xr.Dataset) -> xr.DataArray:
    """Return each run's metrics where its validation loss is lowest: what stopping there would have kept.

    A run that diverges later keeps them, too. NaN where there is no validation loss. Shape (seed, metric).
    """
    validation = cube["value_by_step"].sel(metric="validation_loss", drop=True)
    lowest = validation.where(validation.notnull(), np.inf).argmin("step")
    stopped = cube["value_by_step"].isel(step=lowest).drop_vars("step")
    return stopped.where(validation.notnull().any("step"))
