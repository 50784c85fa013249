"""The bootstrap over seeds, and over repetitions of a study: medians of resamples, their ratios, and intervals."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# An interval is not extrapolated to more than this many times the seeds, or repetitions, that there are.
MOST_TIMES = 20
# Of the draws of repetitions, which are the same for all values of a study.
_REPETITIONS_SEED = 1


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


def resampled_repetitions(
    values: Array, repetition: NDArray[np.int64], resamples: int, generator: np.random.Generator
) -> Array:
    """Return the medians of resamples of repetitions, and then of each drawn one's seeds, of shape (resamples,).

    This is the bootstrap in two stages (Davison and Hinkley, 1997, section 3.8). The repetitions that a resample draws
    are the same for all values that have as many: what a repetition's runs share, as their search or the rows that are
    held out, is then in all of them. The medians are not known (NaN) of a single repetition.

    Args:
        values: Of each run, of shape (seed,).
        repetition: Which repetition each run is of.
        resamples: How many.
        generator: Draws the seeds.
    """
    members = [np.flatnonzero(repetition == one) for one in np.unique(repetition)]
    if len(members) < 2:
        return np.full(resamples, np.nan)
    shares = np.full(len(members), 1 / len(members))
    drawn = np.random.default_rng(_REPETITIONS_SEED).multinomial(len(members), shares, size=resamples)
    counts = np.empty((resamples, len(values)), dtype=np.int64)
    for runs, times in zip(members, drawn.T, strict=True):
        counts[:, runs] = generator.multinomial(times * len(runs), np.full(len(runs), 1 / len(runs)))
    return _weighted_medians(values, counts)


def _weighted_medians(values: Array, counts: NDArray[np.int64]) -> Array:
    """Return the medians of values that are there so many times, of shape (resamples, seed) counts."""
    order = np.argsort(values)
    passed = counts[:, order].cumsum(axis=1)
    total = passed[:, -1:]
    low, high = ((passed < place).sum(axis=1) for place in ((total + 1) // 2, total // 2 + 1))
    with np.errstate(invalid="ignore"):
        medians = (values[order][low] + values[order][high]) / 2
    return np.where(counts[:, np.isnan(values)].any(axis=1), np.nan, medians)


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


def units_to_exclude(
    bound: float, estimate: float, ends: tuple[float, float], units: int, is_ratio: bool = False
) -> float:
    """Estimate with how many units, seeds or repetitions, an interval that now contains a bound would leave it out.

    The estimate is taken to stay where it is, and the interval's ends to approach it as 1/√units; those of a ratio on
    the logarithmic scale.

    Args:
        bound: What the interval contains.
        estimate: The quantity.
        ends: Lower and upper end of its interval.
        units: How many are resampled: runs, or repetitions of the study.
        is_ratio: Whether the quantity is a ratio.

    Returns:
        More than ``units``; infinite where it is beyond :data:`MOST_TIMES` as many, the estimate being as good as at
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
    return max(units + 1, math.ceil(units * (reach / distance) ** 2))
