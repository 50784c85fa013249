"""The table of time to target: how many runs get there, and what it takes."""

from typing import Any

import numpy as np

from adamqlr.results.study import Study, by_dataset
from adamqlr.results.targets import steps_to_target, target_loss, time_to_target
from adamqlr.tables.table import Table, make_table


def tabulate(study: Study, suite: str, target_gap: float) -> Table:
    """Tabulate how many runs reach their dataset's target, and the median cost over all runs."""
    numbers, shown = [], []
    for group in by_dataset(study.test_pairs(suite)).values():
        target = target_loss([pair.cube for pair in group], target_gap)
        for pair in group:
            times, steps = time_to_target(pair.cube, target), steps_to_target(pair.cube, target)
            reached = float(np.isfinite(times).mean())
            time, step = float(times.median()), float(steps.median())
            row: dict[str, Any] = {"dataset": pair.dataset, "optimizer": pair.optimizer, "target": target}
            numbers.append({**row, "reached": reached, "median_time": time, "median_steps": step})
            shown.append(
                {
                    "Dataset": pair.dataset_label,
                    "Target test loss": f"{target:.4g}",
                    "Optimizer": pair.optimizer_label,
                    "Reached": f"{100 * reached:.0f} %",
                    "Median time (s)": f"{time:.3g}" if np.isfinite(time) else "–",
                    "Median steps": f"{step:.0f}" if np.isfinite(step) else "–",
                }
            )
    return make_table(numbers, shown)
