"""Time to target, by hand."""

import numpy as np
import pytest
import xarray as xr

from adamqlr.results.targets import steps_to_target, target_loss, time_to_target

INF = float("inf")


def cube(*runs: list[float]) -> xr.Dataset:
    """Make a cube with values at the steps 0, 1, 2, 3 and the times 1, 2, 4, 8."""
    values = np.array(runs)[:, :, None]
    count = values.shape[1]
    return xr.Dataset(
        {"value": (("seed", "time", "metric"), values), "value_by_step": (("seed", "step", "metric"), values)},
        coords={"metric": ["test_loss"], "time": 2.0 ** np.arange(count), "step": np.arange(count)},
    )


def test_runs_reach_the_target_when_they_are_first_at_or_below_it() -> None:
    made = cube([8, 4, 2, 1], [8, 3, 5, 5], [8, 8, 8, 8], [8, INF, INF, INF])
    assert time_to_target(made, 4).values.tolist() == [2, 2, INF, INF]
    assert steps_to_target(made, 2).values.tolist() == [2, INF, INF, INF]
    assert time_to_target(made, 8).values.tolist() == [1, 1, 1, 1]


def test_the_target_is_between_the_start_and_the_best_end() -> None:
    good, bad, diverged = cube([10, 2], [10, 2], [10, 3]), cube([10, 6]), cube([10, INF])
    assert target_loss([good, bad, diverged], 0.25) == pytest.approx(2 + 0.25 * 8)
    assert np.isnan(target_loss([diverged], 0.25))
