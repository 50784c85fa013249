"""The bootstrap over seeds: medians of resamples, their ratios, and percentile intervals."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def resamples_of(count: int, resamples: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return which of ``count`` seeds are in each resample, of shape (resamples, count)."""
    return generator.integers(count, size=(resamples, count))


def resampled_medians(values: Array, resamples: int, generator: np.random.Generator) -> Array:
    """Return the medians of bootstrap resamples of values of shape (seed,), of shape (resamples,)."""
    return np.median(values[resamples_of(len(values), resamples, generator)], axis=1)


def divide(above: Array, below: Array) -> Array:
    """Divide; equal values, zeros included, have ratio 1, and where both are infinite nothing is known (NaN)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((above == below) & np.isfinite(above), 1.0, above / below)
    return np.where(np.isinf(above) & np.isinf(below), np.nan, ratio)


def interval(values: Array, confidence: float, lowest: float = 0.0) -> tuple[float, float]:
    """Return the percentile interval; what is not known could be anything from ``lowest`` up."""
    tail = (1 - confidence) / 2
    lower = np.quantile(np.where(np.isnan(values), lowest, values), tail, method="inverted_cdf")
    upper = np.quantile(np.where(np.isnan(values), np.inf, values), 1 - tail, method="inverted_cdf")
    return float(lower), float(upper)
