"""The table of best-so-far results: what runs would end with if they stopped at their lowest validation loss."""

from typing import Any

from adamqlr.results.judged import at_lowest_validation_loss
from adamqlr.results.statistics import median_over_seeds
from adamqlr.results.study import Study
from adamqlr.tables.final_results import with_uncertainty
from adamqlr.tables.table import Table, make_table

_METRICS = {"test_loss": "test loss", "test_accuracy": "test accuracy"}


def tabulate(study: Study, suite: str) -> Table:
    """Tabulate medians over seeds where the validation loss is lowest, beside those at the end."""
    numbers, shown = [], []
    for pair in study.test_pairs(suite):
        stopped = at_lowest_validation_loss(pair.cube)
        final = pair.cube["value"].isel(time=-1, drop=True)
        row: dict[str, Any] = {"dataset": pair.dataset, "optimizer": pair.optimizer}
        cells = {"Dataset": pair.dataset_label, "Optimizer": pair.optimizer_label}
        for metric, label in _METRICS.items():
            for name, values in (("best", stopped), ("final", final)):
                found = median_over_seeds(values.sel(metric=metric, drop=True), study.resampling)
                median, std = float(found["median"]), float(found["std"])
                row |= {f"{name}_{metric}": median, f"{name}_{metric}_std": std}
                cells[f"{name.capitalize()} {label}"] = with_uncertainty(median, std)
        numbers.append(row)
        shown.append(cells)
    return make_table(numbers, shown)
