"""The table of a factorial: what each combination of heuristics does for each direction."""

from typing import Any

import numpy as np

from adamqlr.results.factorial import Ratio, cells_of, ratios_of
from adamqlr.results.statistics import survived_fraction
from adamqlr.results.study import Study
from adamqlr.tables.table import Table, make_table

_LABELS = {"final": "Final test loss, relative", "best": "Best test loss, relative"}


def tabulate(study: Study, suite: str, factorial: str) -> Table:
    """Tabulate test losses relative to those of the same direction with the factorial's first heuristics."""
    layout = study.config.factorials[factorial]
    numbers, shown = [], []
    for cells in cells_of(study, suite, factorial).values():
        for cell in cells:
            ratios = dict(ratios_of(cell, study.resampling))
            survived = survived_fraction(cell.pair.cube)
            row: dict[str, Any] = {
                "dataset": cell.pair.dataset,
                "direction": cell.direction,
                "heuristics": cell.heuristics,
            }
            for measure, ratio in ratios.items():
                row |= {measure: ratio.estimate, f"{measure}_lower": ratio.lower, f"{measure}_upper": ratio.upper}
            numbers.append({**row, "survived": survived})
            is_reference = cell.pair is cell.reference
            cells_shown = {_LABELS[name]: "1" if is_reference else _text(ratio) for name, ratio in ratios.items()}
            shown.append(
                {
                    "Dataset": cell.pair.dataset_label,
                    "Direction": layout.direction_label(cell.direction),
                    "Heuristics": layout.heuristics_label(cell.heuristics),
                    **cells_shown,
                    "Survived": f"{100 * survived:.0f} %",
                }
            )
    return make_table(numbers, shown)


def _text(ratio: Ratio) -> str:
    """Write a ratio with its interval."""
    if np.isnan(ratio.estimate):
        return "both diverged"
    estimate, lower, upper = ("∞" if np.isinf(value) else f"{value:.3g}" for value in ratio)
    return f"{estimate} [{lower}, {upper}]"
