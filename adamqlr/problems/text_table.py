"""Text tables of numbers, and errors that say which entry is none."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adamqlr.errors import UserError


def read_table(path: Path) -> NDArray[np.float64]:
    """Read whitespace- or comma-separated rows of numbers.

    A first line without any number is taken for column names and skipped; so is what follows a ``#``.

    Returns:
        Shape (rows, columns).

    Raises:
        UserError: The file is missing or empty, its rows differ in length, or an entry is no finite number; the message
            names file, line and column. Or there are names, but for the first column.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file") from error
    first = next((line for line in lines if line.partition("#")[0].strip()), "")
    delimiter = "," if "," in first else None
    header = bool(first) and not any(_is_number(entry) for entry in _entries(first, delimiter))
    skipped = lines.index(first) + 1 if header else 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            table = np.loadtxt(lines[skipped:], delimiter=delimiter, ndmin=2, dtype=np.float64)
    except ValueError:
        table = None
    if table is None or not np.isfinite(table).all():
        raise UserError(_first_problem(path, lines, skipped, delimiter))
    names = _entries(first, delimiter) if header else []
    if names and (names[0].strip("\"'") in ("", "Unnamed: 0") or len(names) == table.shape[1] - 1):
        raise UserError(
            f"{path}: the first column has no name, as that of an index has none: write it without (index=False)"
        )
    if table.shape[1] < 2 or len(table) == 0:
        raise UserError(f"{path}: expected rows of at least one feature and a target, found {table.shape}")
    return table


def _entries(line: str, delimiter: str | None) -> list[str]:
    return [entry.strip() for entry in line.partition("#")[0].strip().split(delimiter)]


def _is_number(entry: str) -> bool:
    try:
        float(entry)
    except ValueError:
        return False
    return True


def _first_problem(path: Path, lines: list[str], skipped: int, delimiter: str | None) -> str:
    width = None
    for number, line in enumerate(lines[skipped:], start=skipped + 1):
        entries = _entries(line, delimiter)
        if entries == [""] or not entries:
            continue
        width = width or len(entries)
        for column, entry in enumerate(entries, start=1):
            if not _is_number(entry) or not np.isfinite(float(entry)):
                return f"{path}: line {number}, column {column}: {entry!r} is not a finite number"
        if len(entries) != width:
            return f"{path}: line {number} has {len(entries)} columns, the lines before it {width}"
    return f"{path}: not a table of numbers"
