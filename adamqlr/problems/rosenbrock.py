"""The Rosenbrock function as a least-squares problem (paper, section 4.1)."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from adamqlr.problems.problem import Problem
from adamqlr.problems.rosenbrock_function import START, A, B
from adamqlr.problems.rows import Rows
from adamqlr.study.settings import DatasetConfig


class Rosenbrock(nn.Module):
    """Residuals (a − x, √b (y − x²)) of two parameters; half the mean of their squares is the objective.

    Args:
        start: Initial x and y.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.position = nn.Parameter(start)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the residuals, of shape (1, 2); there are no inputs to look at."""
        x, y = self.position
        return torch.stack([A - x, math.sqrt(B) * (y - x * x)])[None]


def load(key: str, settings: DatasetConfig, folder: Path, seed: int) -> Problem:
    """Return the problem: no data, final runs from (1, −1), tuning runs from standard-normal points."""
    rows = Rows(torch.zeros(1, 1), torch.zeros(1, 2))
    return Problem(
        settings.loss,
        rows,
        None,
        None,
        lambda: Rosenbrock(torch.tensor(START)),
        lambda: Rosenbrock(torch.randn(2)),
    )
