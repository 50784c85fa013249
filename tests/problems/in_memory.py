"""Rows in memory, where a test looks into them."""

from adamqlr.problems.examples import Examples
from adamqlr.problems.problem import Problem
from adamqlr.problems.rows import Rows


def rows_in(examples: Examples | None) -> Rows:
    """Return rows that lie in memory as what they are."""
    assert isinstance(examples, Rows)
    return examples


def parts_of(problem: Problem) -> tuple[Rows, Rows, Rows]:
    """Return the training, validation and test rows."""
    return rows_in(problem.train), rows_in(problem.validation), rows_in(problem.test)
