"""Time to target: when runs first reach a loss that counts as good on their dataset."""

from collections.abc import Iterable

import numpy as np
import xarray as xr

METRIC = "test_loss"


def target_loss(cubes: Iterable[xr.Dataset], gap: float) -> float:
    """Return a dataset's target: ``gap`` of the way from the lowest final median test loss up to the initial loss.

    Args:
        cubes: All optimizers' cubes of one dataset.
        gap: Between 0 and 1.
    """
    medians = [cube["value_by_step"].sel(metric=METRIC).isel(step=[0, -1]).median("seed").values for cube in cubes]
    initial, final = np.array(medians).T
    finite = final[np.isfinite(final)]
    lowest = float(finite.min()) if len(finite) else float("nan")
    return lowest + gap * (float(np.median(initial)) - lowest)


def time_to_target(cube: xr.Dataset, target: float) -> xr.DataArray:
    """Return when each run's test loss first is at most ``target``, in seconds; +inf where it never is.

    Shape (seed,). Times are those of the cube's grid.
    """
    return _first(cube["value"].sel(metric=METRIC, drop=True) <= target, "time")


def steps_to_target(cube: xr.Dataset, target: float) -> xr.DataArray:
    """Return after how many steps each run's test loss first is at most ``target``; +inf where it never is."""
    return _first(cube["value_by_step"].sel(metric=METRIC, drop=True) <= target, "step")


def _first(reached: xr.DataArray, axis: str) -> xr.DataArray:
    # argmax is the first True; where there is none it means nothing.
    first = reached[axis].astype(float).isel({axis: reached.argmax(axis)}).drop_vars(axis)
    return first.where(reached.any(axis), np.inf)
