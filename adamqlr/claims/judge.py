"""Ratios and differences of medians, their bootstrap intervals, and the verdicts that follow."""

import operator
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from adamqlr.results.bootstrap import divide, interval, resampled_medians, resampled_repetitions, units_to_exclude
from adamqlr.results.repetitions import REPETITION
from adamqlr.study.settings import ClaimsConfig

Array = NDArray[np.float64]

_RELATIONS = {"≤": operator.le, "≥": operator.ge, "<": operator.lt, ">": operator.gt}


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
        is_ratio: Whether the quantity is a ratio, and not a difference or a share.
        is_strict: Whether the limit itself is not allowed: what is equal is not better.
    """

    estimate: float
    lower: float
    upper: float
    limit: float
    at_least: bool = False
    is_ratio: bool = True
    is_strict: bool = False

    @property
    def relation(self) -> str:
        """What the statement says of quantity and limit: ``≤``, ``≥``, ``<`` or ``>``."""
        return (">" if self.is_strict else "≥") if self.at_least else ("<" if self.is_strict else "≤")

    @property
    def verdict(self) -> Verdict:
        """Supported where the whole interval is within the limit, refuted where all of it is beyond."""
        holds = _RELATIONS[self.relation]
        within, beyond = holds(self.upper, self.limit), not holds(self.lower, self.limit)
        if self.at_least:
            within, beyond = holds(self.lower, self.limit), not holds(self.upper, self.limit)
        return Verdict.SUPPORTED if within else Verdict.REFUTED if beyond else Verdict.UNDECIDED

    def units_to_decide(self, units: int) -> float:
        """Return how many seeds, or repetitions, are estimated to decide it; those that there are, where it is decided.

        Infinite and NaN are as in :func:`adamqlr.results.bootstrap.units_to_exclude`.

        Args:
            units: How many were resampled: :attr:`adamqlr.results.repetitions.Sample.units`.
        """
        if self.verdict is not Verdict.UNDECIDED:
            return units
        return units_to_exclude(self.limit, self.estimate, (self.lower, self.upper), units, self.is_ratio)


def judge_ratio(
    subject: xr.DataArray, references: Sequence[xr.DataArray], limit: float, settings: ClaimsConfig
) -> Judgment:
    """Judge that a median is at most ``limit`` times the lowest median of some others.

    Args:
        subject: Values of one set of runs, of shape (seed,), from :meth:`adamqlr.results.repetitions.Runs.each`.
        references: Values of other sets of runs.
        limit: Largest ratio that the statement allows.
        settings: Level and size of the bootstrap.

    Returns:
        The ratio, with its bootstrap interval.
    """
    above, *below = (resampled(values, settings) for values in (subject, *references))
    ratios = divide(above, np.min(below, axis=0))
    estimate = divide(_median(subject), np.min([_median(values) for values in references], axis=0))
    return Judgment(float(estimate[0]), *interval(ratios, settings.confidence), limit)


def judge_difference(subject: xr.DataArray, reference: xr.DataArray, limit: float, settings: ClaimsConfig) -> Judgment:
    """Judge that a median exceeds another by at most ``limit``: for what may be negative, as ratios then say nothing.

    Returns:
        The difference, with its bootstrap interval; nothing is known of that of two infinite medians.
    """
    above, below = (resampled(values, settings) for values in (subject, reference))
    with np.errstate(invalid="ignore"):
        differences, estimate = above - below, _median(subject) - _median(reference)
    return Judgment(float(estimate[0]), *interval(differences, settings.confidence, -np.inf), limit, is_ratio=False)


def judge_spreads(
    above: Sequence[xr.DataArray], below: Sequence[xr.DataArray], limit: float, settings: ClaimsConfig
) -> Judgment:
    """Judge the ratio of two spreads, each the highest median of some sets of runs over the lowest."""
    spreads, found = [], []
    for sets in (above, below):
        medians = np.array([resampled(one, settings) for one in sets])
        estimates = np.array([_median(one) for one in sets])
        spreads.append(divide(medians.max(axis=0), medians.min(axis=0)))
        found.append(divide(estimates.max(axis=0), estimates.min(axis=0)))
    return Judgment(float(divide(*found)[0]), *interval(divide(*spreads), settings.confidence), limit)


def judge_spread(sets: Sequence[xr.DataArray], limit: float, settings: ClaimsConfig) -> Judgment:
    """Judge that the highest median of some sets of runs is at most ``limit`` times the lowest."""
    medians = np.array([resampled(values, settings) for values in sets])
    found = np.array([_median(values) for values in sets])
    ratios, estimate = (divide(values.max(axis=0), values.min(axis=0)) for values in (medians, found))
    return Judgment(float(estimate[0]), *interval(ratios, settings.confidence), limit)


def resampled(values: xr.DataArray, settings: ClaimsConfig, stream: int = 0) -> Array:
    """Return the medians of bootstrap resamples of values of shape (seed,): of seeds, or of repetitions and seeds.

    Of all values with the same seeds the same ones are drawn: runs of one seed begin with the same network, and what
    they share cancels in ratios and differences.

    Args:
        values: From :meth:`adamqlr.results.repetitions.Runs.each`.
        settings: Size of the bootstrap.
        stream: Draws of another stream are independent: for runs that share nothing, as of other datasets.
    """
    numbers = values.values.astype(float)
    generator = np.random.default_rng([stream, *values["seed"].values])
    if REPETITION in values.coords:
        return resampled_repetitions(numbers, values[REPETITION].values, settings.resamples, generator)
    return resampled_medians(numbers, settings.resamples, generator)


def _median(values: xr.DataArray) -> Array:
    median: Array = np.median(values.values.astype(float), keepdims=True)
    return median
