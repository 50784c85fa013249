"""Medians over seeds and their uncertainty (paper, section 4)."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from adamqlr.results.bootstrap import Array, resamples_of

# Elements of a block of resampled values, which bounds memory to some hundred megabytes.
_BLOCK = 10_000_000


class Resampling(NamedTuple):
    """How the uncertainty of a median is estimated.

    Attributes:
        resamples: Bootstrap resamples of the seeds.
        seed: Seed of the resampling.
    """

    resamples: int
    seed: int


def median_over_seeds(values: xr.DataArray, resampling: Resampling) -> xr.Dataset:
    """Return the median over ``seed`` and its bootstrap uncertainty.

    Diverged runs are ±inf and stay in; where a metric is not defined (NaN), the median is over the seeds that have it.

    Args:
        values: Any shape with a ``seed`` dimension.
        resampling: Number and seed of the resamples.

    Returns:
        ``median``; ``mean`` and ``std`` of the resampled medians (``std`` is NaN where the mean is infinite); ``lower``
        and ``upper``, their 2.5 and 97.5 percentiles.
    """
    ordered = values.transpose("seed", ...)
    template = ordered.isel(seed=0, drop=True)
    flat = ordered.values.astype(np.float64).reshape(ordered.sizes["seed"], -1)
    draws = resamples_of(len(flat), resampling.resamples, np.random.default_rng(resampling.seed))
    columns = max(1, _BLOCK // draws.size)
    blocks = [_summary(flat[:, start : start + columns], draws) for start in range(0, flat.shape[1], columns)]
    summary = np.concatenate(blocks, axis=1)
    names = ("median", "mean", "std", "lower", "upper")
    return xr.Dataset(
        {name: template.copy(data=row.reshape(template.shape)) for name, row in zip(names, summary, strict=True)}
    )


def _summary(values: Array, draws: NDArray[np.int64]) -> Array:
    """Return median, mean, std, lower and upper of each column, of shape (5, columns)."""
    summary = np.full((5, values.shape[1]), np.nan)
    is_missing = np.isnan(values)
    is_whole, is_known = ~is_missing.any(axis=0), ~is_missing.all(axis=0)
    # What leaves NaN out is many times slower.
    for columns, median, quantile in (
        (is_whole, np.median, np.quantile),
        (is_known & ~is_whole, np.nanmedian, np.nanquantile),
    ):
        if columns.any():
            summary[:, columns] = _summary_by(median, quantile, values[:, columns], draws)
    return summary


def _summary_by(
    median: Callable[..., Any], quantile: Callable[..., Any], values: Array, draws: NDArray[np.int64]
) -> Array:
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        # A resample may be of seeds alone that do not have a metric.
        warnings.simplefilter("ignore", RuntimeWarning)
        resampled = median(values[draws], axis=1)
        # Without interpolation: between a finite and an infinite value there is nothing.
        lower, upper = quantile(resampled, [0.025, 0.975], axis=0, method="inverted_cdf")
        mean, std = np.nanmean(resampled, axis=0), np.nanstd(resampled, axis=0)
        return np.stack([median(values, axis=0), mean, std, lower, upper])


def survived_fraction(cube: xr.Dataset) -> float:
    """Return the fraction of a cube's runs that did not diverge."""
    return 1.0 - float(cube["diverged"].mean())
