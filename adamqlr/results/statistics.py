"""Medians over seeds and their uncertainty (paper, section 4)."""

import warnings
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from adamqlr.results.bootstrap import Array, resamples_of

# Elements of a block of resampled values, some megabytes.
_BLOCK = 1_000_000


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
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        # Columns that are NaN throughout are a metric that an optimizer does not have.
        warnings.simplefilter("ignore", RuntimeWarning)
        drawn = values[draws]
        drawn.sort(axis=1)
        resampled = _median(drawn, axis=1)
        ordered = np.sort(resampled, axis=0)
        lower, upper = (_quantile(ordered, fraction) for fraction in (0.025, 0.975))
        mean, std = np.nanmean(resampled, axis=0), np.nanstd(resampled, axis=0)
        return np.stack([_median(np.sort(values, axis=0), axis=0), mean, std, lower, upper])


def _median(ordered: Array, axis: int) -> Array:
    """Return what ``np.nanmedian`` does, which takes many times as long where there is NaN."""
    known = _known(ordered, axis)
    return (_at(ordered, np.maximum(known - 1, 0) // 2, axis) + _at(ordered, known // 2, axis)) / 2


def _quantile(ordered: Array, fraction: float) -> Array:
    """Return what ``np.nanquantile`` by ``inverted_cdf`` does over the first axis, likewise.

    There is no interpolation, as between a finite and an infinite value there is nothing.
    """
    return _at(ordered, np.maximum(np.ceil(_known(ordered, 0) * fraction).astype(np.int64) - 1, 0), axis=0)


def _known(ordered: Array, axis: int) -> NDArray[np.int64]:
    """Return how many values are no NaN, which comes last in their order: one number where all are."""
    if not np.isnan(ordered.take(-1, axis)).any():
        return np.array(ordered.shape[axis])
    return np.asarray(np.count_nonzero(~np.isnan(ordered), axis=axis, keepdims=True))


def _at(ordered: Array, place: NDArray[np.int64], axis: int) -> Array:
    # Of a median of nothing, what is there is NaN.
    place = np.minimum(place, ordered.shape[axis] - 1)
    return ordered.take(place, axis) if place.ndim == 0 else np.take_along_axis(ordered, place, axis).squeeze(axis)


def survived_fraction(cube: xr.Dataset) -> float:
    """Return the fraction of a cube's runs that did not diverge."""
    return 1.0 - float(cube["diverged"].mean())
