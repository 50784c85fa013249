"""The table of divergence: how many runs, and when."""

from typing import Any

from adamqlr.results.study import Study
from adamqlr.tables.table import Table, make_table


def tabulate(study: Study, suite: str) -> Table:
    """Tabulate how many runs diverged, and when: medians over those that did."""
    numbers, shown = [], []
    for pair in study.pairs(suite):
        cube = pair.cube
        diverged = cube["diverged"].astype(bool)
        count, runs = int(diverged.sum()), cube.sizes["seed"]
        step = float(cube["diverged_step"].where(diverged).median()) if count else float("nan")
        time = float(cube["diverged_time"].where(diverged).median()) if count else float("nan")
        row: dict[str, Any] = {"dataset": pair.dataset, "optimizer": pair.optimizer, "runs": runs}
        numbers.append({**row, "diverged": count, "median_step": step, "median_time": time})
        shown.append(
            {
                "Dataset": pair.dataset_label,
                "Optimizer": pair.optimizer_label,
                "Diverged": f"{count} of {runs}",
                "Median step": f"{step:.0f}" if count else "–",
                "Median time (s)": f"{time:.3g}" if count else "–",
            }
        )
    return make_table(numbers, shown)
