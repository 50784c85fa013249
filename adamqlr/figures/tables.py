"""The paper's tables: numbers, and how they are shown."""

import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
import yaml

from adamqlr.config import StudyConfig, parse_config
from adamqlr.figures.cubes import Pair, by_dataset, pairs_of
from adamqlr.results.statistics import Resampling, median_over_seeds, survived_fraction


class Table(NamedTuple):
    """One table.

    Attributes:
        numbers: As plain values, for machines.
        shown: As text, for readers.
        best: Which of the shown cells to set in bold.
    """

    numbers: pd.DataFrame
    shown: pd.DataFrame
    best: pd.DataFrame


_FINAL = {
    "train_loss": ("Training loss", -1),
    "test_loss": ("Test loss", -1),
    "generalization_gap": ("Generalization gap", 0),
    "train_accuracy": ("Training accuracy", 1),
    "test_accuracy": ("Test accuracy", 1),
    "steps": ("Steps", 0),
    "time": ("Time (s)", 0),
}


def final_results(study: xr.DataTree, suite: str, resampling: Resampling) -> Table:
    """Tabulate what runs end with: medians over seeds, ± the standard deviation of their bootstrap resamples."""
    numbers: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    best = []
    for pairs in by_dataset(pairs_of(study, suite)).values():
        summaries = [_final_summary(pair, resampling) for pair in pairs]
        best.append(_best_of(summaries))
        for pair, summary in zip(pairs, summaries, strict=True):
            survived = survived_fraction(pair.cube)
            row: dict[str, Any] = {"dataset": pair.dataset, "optimizer": pair.optimizer}
            for name in _FINAL:
                row[name], row[f"{name}_std"] = summary[name]
            numbers.append({**row, "seeds": pair.cube.sizes["seed"], "survived": survived})
            labels = {"Dataset": pair.dataset_label, "Optimizer": pair.optimizer_label}
            cells = {label: _with_uncertainty(*summary[name]) for name, (label, _) in _FINAL.items()}
            shown.append({**labels, **cells, "Survived": f"{100 * survived:.0f} %"})
    return make_table(numbers, shown, pd.concat(best, ignore_index=True))


def _best_of(summaries: list[dict[str, tuple[float, float]]]) -> pd.DataFrame:
    """Mark the best median of each column where there is a better and a worse, of one dataset's optimizers."""
    marks = {}
    for name, (label, sign) in _FINAL.items():
        medians = pd.Series([summary[name][0] for summary in summaries]).replace([np.inf, -np.inf], np.nan)
        wanted = medians.max() if sign > 0 else medians.min()
        marks[label] = (medians == wanted) & (sign != 0)
    return pd.DataFrame(marks)


def _final_summary(pair: Pair, resampling: Resampling) -> dict[str, tuple[float, float]]:
    cube = pair.cube
    last = cube["value"].isel(time=-1)
    quantities = {name: last.sel(metric=name, drop=True) for name in _FINAL if name in last["metric"]}
    gap = quantities["test_loss"] - quantities["train_loss"]
    quantities |= {
        # Where both losses are infinite the gap is unknown, and no better than infinite.
        "generalization_gap": gap.where(~(cube["diverged"] & np.isinf(quantities["test_loss"])), np.inf),
        "steps": cube["final_step"].astype(float),
        "time": cube["final_time"],
    }
    summary = {}
    for name, values in quantities.items():
        reduced = median_over_seeds(values, resampling)
        summary[name] = (float(reduced["median"]), float(reduced["std"]))
    return summary


def _with_uncertainty(median: float, std: float) -> str:
    if np.isnan(median):
        return "–"
    if np.isinf(median):
        return "diverged"
    return _number(median, 4) if not std > 0 else f"{_number(median, 4)} ± {_number(std, 2)}"


def _number(value: float, digits: int) -> str:
    """Write a number with so many digits, and up to seven before the point without an exponent: 24000 steps."""
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text and abs(value) < 1e7 else text


def best_hyperparameters(study: xr.DataTree, suite: str, resampling: Resampling) -> Table:
    """Tabulate the hyperparameters that final training used; those that were not tuned are in parentheses."""
    pairs = pairs_of(study, suite)
    config = _config_of(pairs)
    used = [json.loads(pair.cube.attrs["hyperparameters"]) for pair in pairs]
    tuned = {name for pair in pairs for name in config.space(pair.optimizer, pair.dataset)}
    names = sorted(tuned, key=lambda name: (name != "batch_size", name))
    numbers: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for pair, chosen in zip(pairs, used, strict=True):
        numbers.append({"dataset": pair.dataset, "optimizer": pair.optimizer} | {n: chosen.get(n) for n in names})
        labels = {"Dataset": pair.dataset_label, "Optimizer": pair.optimizer_label}
        space = config.space(pair.optimizer, pair.dataset)
        shown.append(labels | {n: _hyperparameter(chosen.get(n), tuned=n in space) for n in names})
    return make_table(numbers, shown)


def _hyperparameter(value: object, tuned: bool) -> str:
    if value is None:
        return "–"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if tuned else f"({text})"


def search_space(study: xr.DataTree, suite: str, resampling: Resampling) -> Table:
    """Tabulate what is tuned, and over which range."""
    config = _config_of(pairs_of(study, suite))
    rows = [
        {"Optimizer": config.optimizer_label(key), "Hyperparameter": name, "Range": distribution.describe()}
        for key in config.optimizers
        for name, distribution in config.space(key).items()
    ]
    return make_table(rows, rows)


def _config_of(pairs: list[Pair]) -> StudyConfig:
    return parse_config(yaml.safe_load(pairs[0].cube.attrs["config"]), "the study's file")


def make_table(numbers: list[dict[str, Any]], shown: list[dict[str, Any]], best: pd.DataFrame | None = None) -> Table:
    """Return a table of rows; ``best`` marks cells of some of the shown columns."""
    texts = pd.DataFrame(shown)
    marks = pd.DataFrame(False, index=texts.index, columns=texts.columns)
    if best is not None:
        marks[best.columns] = best
    return Table(pd.DataFrame(numbers), texts, marks)
