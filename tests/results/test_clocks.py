"""The clock of training with an evaluation after every step."""

import numpy as np
import xarray as xr

from adamqlr.results.clocks import with_evaluation


def two_runs(first_time: float, steps: list[list[int]]) -> xr.Dataset:
    return xr.Dataset(
        {
            "value": (("seed", "time", "metric"), np.array([[[5.0], [4.0], [3.0]], [[9.0], [8.0], [7.0]]])),
            "step_at_time": (("seed", "time"), np.array(steps)),
            "evaluation_seconds": ("seed", [0.5, 2.0]),
            "diverged": ("seed", [False, False]),
        },
        coords={"seed": [0, 1], "time": [first_time, 2.0, 4.0], "metric": ["test_loss"]},
    )


def test_a_value_appears_after_its_training_and_all_evaluations_before_it() -> None:
    found = with_evaluation(two_runs(1.0, [[1, 2, 4], [1, 1, 2]]))
    # Times of the records are 1.5, 3, 6 and 3, 4, 8; the grid has as many points as before.
    np.testing.assert_allclose(found["time"], np.geomspace(1.5, 8, 3))
    np.testing.assert_array_equal(found["value"].isel(metric=0), [[5, 4, 3], [9, 9, 7]])


def test_the_clock_starts_with_the_first_step_of_any_run() -> None:
    found = with_evaluation(two_runs(0.01, [[0, 0, 4], [0, 1, 2]]))
    np.testing.assert_allclose(found["time"], np.geomspace(4, 8, 3))
