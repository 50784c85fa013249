"""The bootstrap over seeds: medians of resamples, their ratios, and percentile intervals, now and with more seeds."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# An interval is not extrapolated to more than this many times the seeds that there are.
MOST_TIMES = 20


def resamples_of(count: int, resamples: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return which of ``count`` seeds are in each resample, of shape (resamples, count)."""
    return generator.integers(count, size=(resamples, count))


def resampled_medians(values: Array, resamples: int, generator: np.random.Generator) -> Array:
    """Return the medians of bootstrap resamples of values of shape (seed,), of shape (resamples,).

    They are not known (NaN) of a single run, whose resamples are all the same.
    """
    if len(values) < 2:
        return np.full(resamples, np.nan)
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


def seeds_to_exclude(
    bound: float, estimate: float, ends: tuple[float, float], seeds: int, is_ratio: bool = False
) -> float:
    """Estimate with how many seeds an interval of medians, which now contains a bound, would leave it out.

    The estimate is taken to stay where it is, and the interval's ends to approach it as 1/√seeds; those of a ratio on
    the logarithmic scale.

    Args:
        bound: What the interval contains.
        estimate: The quantity.
        ends: Lower and upper end of its interval.
        seeds: Runs that each median is of.
        is_ratio: Whether the quantity is a ratio.

    Returns:
        More than ``seeds``; infinite where it is beyond :data:`MOST_TIMES` as many, the estimate being as good as at
        the bound; NaN where the estimate or the interval's end beyond the bound is infinite, so that no width is known.
    """
    with np.errstate(divide="ignore"):
        numbers = np.array([bound, estimate, *ends])
        at, center, lower, upper = (float(number) for number in (np.log(numbers) if is_ratio else numbers))
    distance, reach = (at - center, upper - center) if center < at else (center - at, center - lower)
    if not math.isfinite(center) or not math.isfinite(reach):
        return math.nan
    if distance == 0 or reach**2 > MOST_TIMES * distance**2:
        return math.inf
    return max(seeds + 1, math.ceil(seeds * (reach / distance) ** 2))
