"""Histories made up for tests, and their cubes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from adamqlr.results.attributes import file_attributes
from adamqlr.results.cube import build_cube
from adamqlr.results.runs import runs_dataset
from adamqlr.study.case import Case
from adamqlr.training.history import History


def cube_of(case: Case, histories: Sequence[History], grid_points: int = 20, **attributes: Any) -> xr.Dataset:
    """Return the cube of runs that were made up."""
    attrs = file_attributes(
        case, **{"seeds": [one.seed for one in histories], "hyperparameters": {}, "device": "a CPU", **attributes}
    )
    return build_cube([runs_dataset(histories, attrs)], grid_points)


def history(seed: int, steps: list[int], times: list[float], losses: list[float], diverged: bool = False) -> History:
    """Make a history whose losses are given and whose accuracies are undefined."""
    made = History(seed, diverged=diverged)
    for step, time, loss in zip(steps, times, losses, strict=True):
        made.append(step, time, {"train_loss": loss, "test_loss": loss + 1, "validation_loss": loss, "lr": 0.1})
    return made


def random_history(seed: int, records: int, accuracy: bool = True) -> History:
    """Make a noisy, decreasing history."""
    generator = np.random.default_rng(seed)
    made = History(seed)
    for record in range(records):
        loss = float(np.exp(-record / records * 3 + 0.2 * generator.normal()))
        names = ("train_loss", "validation_loss", "test_loss", "lr", "damping", "rho", "sharpness")
        metrics = dict.fromkeys(names, loss)
        if accuracy:
            metrics |= dict.fromkeys(("train_accuracy", "validation_accuracy", "test_accuracy"), 1 / (1 + loss))
        # Step 0 is before any minibatch: only whole sets have been looked at.
        known = metrics if record else {name: value for name, value in metrics.items() if "test" in name}
        made.append(record, 0.01 * record * float(generator.uniform(0.9, 1.1)), known)
    made.times.sort()
    return made
