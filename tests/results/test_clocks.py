"""The clock of training with an evaluation after every step."""

import numpy as np
import xarray as xr

from adamqlr.results.clocks import with_evaluation


def test_a_value_appears_after_its_training_and_all_evaluations_before_it() -> None:
    cube = xr.Dataset(
        {
            "value": (("seed", "time", "metric"), np.array([[[5.0], [4.0], [3.0]], [[9.0], [8.0], [7.0]]])),
            "step_at_time": (("seed", "time"), np.array([[1, 2, 4], [1, 1, 2]])),
            "evaluation_seconds": ("seed", [0.5, 2.0]),
            "diverged": ("seed", [False, False]),
        },
        coords={"seed": [0, 1], "time": [1.0, 2.0, 4.0], "metric": ["test_loss"]},
    )
    found = with_evaluation(cube)
    # Times of the records are 1.5, 3, 6 and 3, 4, 8; the grid has as many points as before.
    np.testing.assert_allclose(found["time"], np.geomspace(1.5, 8, 3))
    np.testing.assert_array_equal(found["value"].isel(metric=0), [[5, 4, 3], [9, 9, 7]])


def test_the_clock_starts_with_the_first_step_of_any_run() -> None:
    cube = xr.Dataset(
        {
            "value": (("seed", "time", "metric"), np.array([[[5.0], [4.0], [3.0]], [[9.0], [8.0], [7.0]]])),
            "step_at_time": (("seed", "time"), np.array([[0, 0, 4], [0, 1, 2]])),
            "evaluation_seconds": ("seed", [0.5, 2.0]),
            "diverged": ("seed", [False, False]),
        },
        coords={"seed": [0, 1], "time": [0.01, 2.0, 4.0], "metric": ["test_loss"]},
    )
    np.testing.assert_allclose(with_evaluation(cube)["time"], np.geomspace(4, 8, 3))
