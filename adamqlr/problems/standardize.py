"""Standardization with the statistics of the training and validation rows."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]


class Standardization(NamedTuple):
    """An affine map to zero mean and unit deviation.

    Attributes:
        mean: Per feature, shape (1, features), or per channel, shape (1, channels, 1, 1).
        deviation: Likewise; 1 where the data does not vary.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def __call__(self, values: Numbers) -> NDArray[np.float32]:
        """Return standardized values."""
        standardized = np.empty(values.shape, dtype=np.float32)
        # In chunks, so that images need no second copy in double precision.
        for part, chunk in zip(_chunks(standardized), _chunks(values), strict=True):
            part[...] = (chunk - self.mean) / self.deviation
        return standardized


def standardization_of(values: Numbers) -> Standardization:
    """Return the map that standardizes ``values``: per feature for tables, per channel for images."""
    axes = (0,) if values.ndim == 2 else (0, *range(2, values.ndim))
    mean = values.mean(axis=axes, keepdims=True, dtype=np.float64)
    squares = np.zeros_like(mean)
    for chunk in _chunks(values):
        squares += ((chunk - mean) ** 2).sum(axis=axes, keepdims=True)
    deviation = np.sqrt(squares * mean.size / values.size)
    # A constant column's deviation is rounding error rather than zero.
    vanishes = deviation <= 1e-12 * np.abs(mean)
    return Standardization(mean, np.where(vanishes, 1.0, deviation))


def _chunks(values: Numbers) -> list[Numbers]:
    return np.array_split(values, max(1, len(values) // 1000))
