"""The table of final results: what runs end with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from adamqlr.results.final import QUANTITIES, final_values
from adamqlr.results.published import Value
from adamqlr.results.statistics import Resampling, median_over_seeds, survived_fraction
from adamqlr.results.study import Pair, Study, by_dataset
from adamqlr.tables.table import Table, make_table


def tabulate(study: Study, suite: str) -> Table:
    """Tabulate what runs end with: medians over seeds, ± the standard deviation of their bootstrap resamples."""
    numbers: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    best = []
    for pairs in by_dataset(study.pairs(suite)).values():
        summaries = [_final_summary(pair, study.resampling) for pair in pairs]
        best.append(_best_of(summaries))
        for pair, summary in zip(pairs, summaries, strict=True):
            survived = survived_fraction(pair.cube)
            row: dict[str, Any] = {"dataset": pair.dataset, "optimizer": pair.optimizer}
            for name in QUANTITIES:
                row[name], row[f"{name}_std"] = summary[name]
            published = study.published_of(suite, pair)
            for name, value in published.items():
                row[f"published_{name}"], row[f"published_{name}_error"] = value
            numbers.append({**row, "seeds": pair.cube.sizes["seed"], "survived": survived})
            labels = {"Dataset": pair.dataset_label, "Optimizer": pair.optimizer_label}
            cells = {label: with_uncertainty(*summary[name]) for name, (label, _) in QUANTITIES.items()}
            if any(key.suite == suite for key in study.published):
                cells["Published"] = _published(published)
            shown.append({**labels, **cells, "Survived": f"{100 * survived:.0f} %"})
    return make_table(numbers, shown, pd.concat(best, ignore_index=True))


def _published(values: Mapping[str, Value]) -> str:
    known = {name: (values[name].value, np.nan_to_num(values[name].error)) for name in QUANTITIES if name in values}
    found = {QUANTITIES[name].label.lower(): with_uncertainty(*pair) for name, pair in known.items()}
    return ", ".join(f"{label} {text}" for label, text in found.items()) or "–"


def _best_of(summaries: list[dict[str, tuple[float, float]]]) -> pd.DataFrame:
    """Mark the best median of each column where there is a better and a worse, of one dataset's optimizers."""
    marks = {}
    for name, (label, sign) in QUANTITIES.items():
        medians = pd.Series([summary[name][0] for summary in summaries]).replace([np.inf, -np.inf], np.nan)
        wanted = medians.max() if sign > 0 else medians.min()
        marks[label] = (medians == wanted) & (sign != 0)
    return pd.DataFrame(marks)


def _final_summary(pair: Pair, resampling: Resampling) -> dict[str, tuple[float, float]]:
    summary = {}
    for name, values in final_values(pair.cube).items():
        reduced = median_over_seeds(values, resampling)
        summary[name] = (float(reduced["median"]), float(reduced["std"]))
    return summary


def with_uncertainty(median: float, std: float) -> str:
    """Write a median ± the standard deviation of its resamples, which has no end where some of these are infinite."""
    if np.isnan(median):
        return "–"
    if np.isinf(median):
        return "diverged"
    if np.isnan(std):
        return f"{_number(median, 4)} ± ∞"
    # The mean of equal values rounds, which is no spread.
    return _number(median, 4) if not std > 1e-12 * abs(median) else f"{_number(median, 4)} ± {_number(std, 2)}"


def _number(value: float, digits: int) -> str:
    """Write a number with so many digits, but all that up to seven have before the point: 25344 steps."""
    return f"{value:.0f}" if 10**digits <= abs(value) < 1e7 else f"{value:.{digits}g}"
