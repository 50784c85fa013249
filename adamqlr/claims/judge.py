"""Ratios of medians, their bootstrap intervals, and the verdicts that follow."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from adamqlr.study.settings import ClaimsConfig

Array = NDArray[np.float64]


class Verdict(StrEnum):
    """What an interval says about a statement."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


class Judgment(NamedTuple):
    """A quantity that a statement says is at most, or at least, a limit.

    Attributes:
        estimate: The quantity.
        lower: Lower end of its bootstrap interval.
        upper: Upper end.
        limit: What the statement allows.
        at_least: Whether the limit is the least that it allows, instead of the most.
    """

    estimate: float
    lower: float
    upper: float
    limit: float
    at_least: bool = False

    @property
    def verdict(self) -> Verdict:
        """Supported where the whole interval is within the limit, refuted where all of it is beyond."""
        within, beyond = self.upper <= self.limit, self.lower > self.limit
        if self.at_least:
            within, beyond = self.lower >= self.limit, self.upper < self.limit
        return Verdict.SUPPORTED if within else Verdict.REFUTED if beyond else Verdict.UNDECIDED


def performance(cube: xr.Dataset, time: float | None = None) -> xr.DataArray:
    """Return what each run is judged by, the lower the better: test error of classes, test loss of real targets.

    A run that has diverged counts as +inf.

    Args:
        cube: A cube.
        time: Training seconds after which to look; at the end of the runs if not given.

    Returns:
        Shape (seed,).
    """
    index = -1 if time is None else max(0, int(np.searchsorted(cube["time"].values, time, side="right")) - 1)
    at = cube["value"].isel(time=index)
    if cube.attrs["loss"] == "cross_entropy":
        return 1 - at.sel(metric="test_accuracy", drop=True).drop_vars("time")
    return at.sel(metric="test_loss", drop=True).drop_vars("time")


def judge_ratio(
    subject: xr.DataArray, references: Sequence[xr.DataArray], limit: float, settings: ClaimsConfig
) -> Judgment:
    """Judge that a median is at most ``limit`` times the lowest median of some others.

    Args:
        subject: Values of one set of runs, of shape (seed,).
        references: Values of other sets of runs.
        limit: Largest ratio that the statement allows.
        settings: Level and size of the bootstrap, in which every set is resampled on its own.
    """
    generator = np.random.default_rng(0)
    above, *below = (resampled_medians(values, settings.resamples, generator) for values in (subject, *references))
    ratios = divide(above, np.min(below, axis=0))
    estimate = divide(_median(subject), np.min([_median(values) for values in references], axis=0))
    return Judgment(float(estimate[0]), *interval(ratios, settings.confidence), limit)


def judge_spread(sets: Sequence[xr.DataArray], limit: float, settings: ClaimsConfig) -> Judgment:
    """Judge that the highest median of some sets of runs is at most ``limit`` times the lowest."""
    generator = np.random.default_rng(0)
    medians = np.array([resampled_medians(values, settings.resamples, generator) for values in sets])
    found = np.array([_median(values) for values in sets])
    ratios, estimate = (divide(values.max(axis=0), values.min(axis=0)) for values in (medians, found))
    return Judgment(float(estimate[0]), *interval(ratios, settings.confidence), limit)


def resampled_medians(values: xr.DataArray, resamples: int, generator: np.random.Generator) -> Array:
    """Return the medians of bootstrap resamples of the seeds, of shape (resamples,)."""
    data = values.values.astype(float)
    return np.median(data[generator.integers(len(data), size=(resamples, len(data)))], axis=1)


def divide(above: Array, below: Array) -> Array:
    """Divide; equal values, zeros included, have ratio 1, and where both are infinite nothing is known (NaN)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((above == below) & np.isfinite(above), 1.0, above / below)
    return np.where(np.isinf(above) & np.isinf(below), np.nan, ratio)


def interval(values: Array, confidence: float) -> tuple[float, float]:
    """Return the percentile interval; what is not known could be anything."""
    tail = (1 - confidence) / 2
    lower = np.quantile(np.where(np.isnan(values), 0.0, values), tail, method="inverted_cdf")
    upper = np.quantile(np.where(np.isnan(values), np.inf, values), 1 - tail, method="inverted_cdf")
    return float(lower), float(upper)


def _median(values: xr.DataArray) -> Array:
    return np.median(values.values.astype(float), keepdims=True)
