"""How many more seeds, or repetitions, would decide what is undecided, and the command that trains such seeds."""

import math
from collections.abc import Container, Mapping
from typing import Any

import pandas as pd
import yaml

from adamqlr.claims.evidence import Evidence
from adamqlr.claims.judge import Verdict
from adamqlr.results.bootstrap import MOST_TIMES
from adamqlr.study.config import StudyConfig
from adamqlr.study.names import CONFIG_NAME

TRAINING = "training.seeds"


def setting_of(item: Evidence, config: StudyConfig) -> str:
    """Return the settings that say how many seeds there are of what was weighed, separated by spaces."""
    if item.sweeps:
        own = [f"sensitivity.{name}.seeds" for name in item.sweeps if name in config.sensitivity]
        return " ".join(own) or TRAINING
    datasets = item.datasets or (item.dataset,)
    own = [f"datasets.{name}.seeds" for name in datasets if name in config.datasets and config.dataset(name).seeds]
    return " ".join(own if len(own) == len(datasets) else [*own, TRAINING])


def unit_of(table: Container[str]) -> str:
    """Return what is resampled in a table of :func:`adamqlr.claims.weigh.weigh`, or a row: ``seeds`` or repetitions."""
    return "repetitions" if "repetitions" in table else "seeds"


def more_seeds_text(row: Mapping[Any, Any]) -> str:
    """Say how many more seeds, or repetitions, would decide a row of ``weigh``; nothing if it is decided."""
    if row["verdict"] != Verdict.UNDECIDED:
        return ""
    units, more = row[unit_of(row)], row[f"more_{unit_of(row)}"]
    if math.isnan(more):
        # A single run has no interval, from which to tell more.
        return "at least 1" if units == 1 else "unknown"
    return f"more than {(MOST_TIMES - 1) * units}" if math.isinf(more) else f"{more:.0f}"


def how_to_decide(table: pd.DataFrame, config: StudyConfig) -> list[str]:
    """Return what would decide all that a number can be told of, a line each; nothing where there is none.

    Args:
        table: What :func:`adamqlr.claims.weigh.weigh` returned.
        config: The study.
    """
    if unit_of(table) == "seeds":
        return advice(config, wanted_settings(table, config))
    more = table.loc[table["more_repetitions"] < math.inf, "more_repetitions"]
    return [f"{more.max():.0f} more repetitions of the study, each with a seed of its own"] if len(more) else []


def wanted_settings(table: pd.DataFrame, config: StudyConfig) -> dict[str, int]:
    """Return the seeds that would decide all that a number can be told of, by setting; none has fewer than now.

    Args:
        table: What :func:`adamqlr.claims.weigh.weigh` returned.
        config: The study.
    """
    wanted: dict[str, int] = {}
    for row in table[table["more_seeds"] < math.inf].to_dict("records"):
        for setting in row["setting"].split():
            # A row may be of the fewer seeds of another study, or of those of which a quantity is known.
            least = wanted.get(setting, _seeds_now(setting, config))
            wanted[setting] = max(least, int(row["seeds"] + row["more_seeds"]))
    return wanted


def _seeds_now(setting: str, config: StudyConfig) -> int:
    section, _, path = setting.partition(".")
    name = path.rpartition(".")[0]
    own = None
    if name:
        own = config.dataset(name).seeds if section == "datasets" else config.sweep(name).seeds
    return config.training.seeds if own is None else own


def advice(config: StudyConfig, wanted: Mapping[str, int]) -> list[str]:
    """Return the command that trains so many seeds into the study's folder, and what a command cannot set.

    Args:
        config: The study.
        wanted: What :func:`wanted_settings` returned.
    """
    sections: dict[str, dict[str, Any]] = {}
    by_hand = []
    for setting, seeds in wanted.items():
        section, _, path = setting.partition(".")
        name = path.rpartition(".")[0]
        if section == "datasets":
            # Which may be a list, that Snakemake would replace.
            by_hand.append(f"set {setting} to {seeds} in the configuration")
        else:
            sections.setdefault(section, {}).update({name: {"seeds": seeds}} if name else {"seeds": seeds})
    if not sections:
        return by_hand
    parts = " ".join(f"{section}='{_flow(settings)}'" for section, settings in sections.items())
    return [f"snakemake --configfile results/{config.name}/{CONFIG_NAME} --config {parts}", *by_hand]


def _flow(settings: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(settings, default_flow_style=True, sort_keys=False, width=math.inf)).strip()
