"""A table: its numbers, and how they are shown."""

from typing import Any, NamedTuple

import pandas as pd


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


def make_table(numbers: list[dict[str, Any]], shown: list[dict[str, Any]], best: pd.DataFrame | None = None) -> Table:
    """Return a table of rows; ``best`` marks cells of some of the shown columns."""
    texts = pd.DataFrame(shown)
    marks = pd.DataFrame(False, index=texts.index, columns=texts.columns)
    if best is not None:
        marks[best.columns] = best
    return Table(pd.DataFrame(numbers), texts, marks)
