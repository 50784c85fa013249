"""The tables of hyperparameters: those used, and the space that was searched."""

import json
from typing import Any

from adamqlr.results.study import Study
from adamqlr.study.case import cases_of
from adamqlr.tables.table import Table, make_table


def best(study: Study, suite: str) -> Table:
    """Tabulate the hyperparameters that final training used; those that were not tuned are in parentheses."""
    pairs = study.pairs(suite)
    used = [json.loads(pair.cube.attrs["hyperparameters"]) for pair in pairs]
    spaces = [study.space(suite, pair.dataset, pair.optimizer) or {} for pair in pairs]
    tuned = {name for space in spaces for name in space}
    names = sorted(tuned, key=lambda name: (name != "batch_size", name))
    numbers: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for pair, chosen, space in zip(pairs, used, spaces, strict=True):
        numbers.append({"dataset": pair.dataset, "optimizer": pair.optimizer} | {n: chosen.get(n) for n in names})
        labels = {"Dataset": pair.dataset_label, "Optimizer": pair.optimizer_label}
        shown.append(labels | {n: _hyperparameter(chosen.get(n), tuned=n in space) for n in names})
    return make_table(numbers, shown)


def _hyperparameter(value: object, tuned: bool) -> str:
    if value is None:
        return "–"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if tuned else f"({text})"


def search_space(study: Study, suite: str) -> Table:
    """Tabulate what is tuned, and over which range: of optimizers in general, and where a dataset has its own."""
    config = study.config
    tuned: dict[str, set[str]] = {}
    for case in cases_of(config, suite):
        tuned.setdefault(case.optimizer, set()).update(case.space)
    rows = [
        _row("all without their own", config.spec(key).label, name, distribution.describe())
        for key, names in tuned.items()
        for name, distribution in config.space(key).items()
        if name in names
    ]
    for key in config.datasets_of(suite):
        settings, label = config.dataset(key), config.dataset_label(key)
        for name, distribution in settings.space.items():
            every = name in settings.data_hyperparameters
            tuning = "all that are tuned" if every else "all that tune it"
            rows.append(_row(label, tuning, name, distribution.describe()))
        if settings.fixed_batch_size:
            rows.append(_row(label, "all", "batch_size", f"{settings.batch_size}, not tuned"))
        is_limited = config.suite(suite).budget == "epochs" and config.tuning.unit != "epochs"
        if is_limited and settings.tuning_limit is not None:
            rows.append(_row(label, "all that are tuned", "training time", f"at most {settings.tuning_limit:g} s"))
    return make_table(rows, rows)


def _row(dataset: str, optimizer: str, hyperparameter: str, values: str) -> dict[str, Any]:
    return {"Dataset": dataset, "Optimizer": optimizer, "Hyperparameter": hyperparameter, "Range": values}
