"""The Rosenbrock function itself, of numbers and arrays.

Importing this module does not import PyTorch: a figure needs nothing else of the problem.
"""

import numpy as np
from numpy.typing import NDArray

A, B = 1.0, 100.0
START = (1.0, -1.0)


def objective(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ½ · mean((a − x)², b (y − x²)²) at points of any shape."""
    return ((A - x) ** 2 + B * (y - x * x) ** 2) / 4
