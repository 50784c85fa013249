"""What steps cost: seconds by batch size, measured once, so that a search in seconds can be repeated in steps."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamqlr.errors import UserError
from adamqlr.files import write_text

_SECONDS = "seconds_per_step"


@dataclass(frozen=True)
class StepCosts:
    """Seconds of a step of one optimizer on one dataset.

    Attributes:
        names: The data's hyperparameters, on which they depend, such as ``batch_size``.
        seconds: By the values of these.
        path: The file that they are from.
    """

    names: tuple[str, ...]
    seconds: Mapping[tuple[int, ...], float]
    path: Path

    def of(self, hyperparameters: Mapping[str, Any]) -> float:
        """Return the seconds of a step.

        Raises:
            UserError: They were not measured.
        """
        values = tuple(hyperparameters[name] for name in self.names)
        if values not in self.seconds:
            wanted = ", ".join(f"{name} {value}" for name, value in zip(self.names, values, strict=True))
            raise UserError(f"{self.path}: no step of {wanted}: remove the file to have it measured again")
        return self.seconds[values]


def read_step_costs(path: Path, names: Sequence[str]) -> StepCosts:
    """Return the step costs in a file.

    Args:
        path: The file.
        names: The data's hyperparameters.

    Raises:
        UserError: It is missing, or is no such file.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = {*names, _SECONDS} - set(reader.fieldnames or ())
        if missing:
            raise UserError(f"{path}: no column {sorted(missing)[0]}")
        try:
            seconds = {tuple(int(row[name]) for name in names): float(row[_SECONDS]) for row in reader}
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    if not all(0 < value < float("inf") for value in seconds.values()):
        raise UserError(f"{path}: {_SECONDS} must be positive")
    return StepCosts(tuple(names), seconds, path)


def write_step_costs(costs: StepCosts, about: Mapping[str, str]) -> None:
    """Write step costs as CSV.

    Args:
        costs: What to write, and where.
        about: Where they were measured; columns that are the same in each row.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*costs.names, _SECONDS, *about])
    writer.writerows([*values, f"{seconds:.6g}", *about.values()] for values, seconds in costs.seconds.items())
    write_text(costs.path, text.getvalue())
