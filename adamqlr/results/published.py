"""What others published, beside which a study's own results stand: ``published.csv`` in the study's folder."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from adamqlr.errors import UserError
from adamqlr.results.final import QUANTITIES
from adamqlr.study.case import cases_of
from adamqlr.study.config import StudyConfig

FILE_NAME = "published.csv"
COLUMNS = ("suite", "dataset", "optimizer", "metric", "value", "error")


class Key(NamedTuple):
    """What a published value is of; the metric is one of :data:`adamqlr.results.final.QUANTITIES`."""

    suite: str
    dataset: str
    optimizer: str
    metric: str


class Value(NamedTuple):
    """A published value and its error, NaN where none is given."""

    value: float
    error: float


def published_file(study_path: Path) -> Path:
    """Return where published values lie, whether or not they do.

    Args:
        study_path: The study's file, or its folder ``results/<study>``.
    """
    return (study_path if study_path.is_dir() else study_path.parent) / FILE_NAME


def read_published(path: Path) -> Mapping[Key, Value]:
    """Return published values; none where there is no such file.

    Raises:
        UserError: The file has other columns, or a row that is no value, of no known metric, or there twice.
    """
    if not path.exists():
        return {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        if set(reader.fieldnames or ()) != set(COLUMNS):
            raise UserError(f"{path}: expected the columns {','.join(COLUMNS)}")
        found: dict[Key, Value] = {}
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            key = Key(*((row[name] or "").strip() for name in Key._fields))
            if key.metric not in QUANTITIES:
                raise UserError(f"{where}: unknown metric '{key.metric}': expected one of {', '.join(QUANTITIES)}")
            if key in found:
                raise UserError(f"{where}: a second value of {'/'.join(key)}")
            found[key] = Value(_number(row["value"], where), _number(row["error"] or "nan", where))
            if not math.isfinite(found[key].value):
                raise UserError(f"{where}: the value is missing")
    return found


def published_of(config: StudyConfig, suite: str, published: Mapping[Key, Value]) -> dict[Key, Value]:
    """Return what was published on the cases of a suite."""
    cases = {(suite, case.dataset, case.optimizer) for case in cases_of(config, suite)}
    return {key: value for key, value in published.items() if key[:3] in cases}


def _number(text: str | None, where: str) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        raise UserError(f"{where}: '{text}' is no number") from None
