"""What the course of training says about a statement, and how optimizers rank."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from adamqlr.claims.evidence import Evidence, label_of, runs_by_dataset
from adamqlr.claims.judge import Judgment, judge_difference, judge_ratio, resampled
from adamqlr.results.bootstrap import interval
from adamqlr.results.final import final_values
from adamqlr.results.judged import at_lowest_validation_loss, measure_of, performance
from adamqlr.results.repetitions import Sample, sample_of
from adamqlr.results.study import Study

# So many steps, evenly spaced, stand for a course of more.
_STEPS = 1000


def overfits(study: Study, subject: str) -> Iterator[Evidence]:
    """Weigh whether an optimizer ends with a higher test loss than where its validation loss was lowest."""
    settings = study.config.claims
    for suite, dataset, runs in runs_by_dataset(study):
        if subject in runs:
            final = runs[subject].each(_final_loss)
            best = runs[subject].each(lambda cube: at_lowest_validation_loss(cube).sel(metric="test_loss", drop=True))
            if best.isnull().all():
                continue
            judgment = judge_ratio(final, [best], 1 + settings.margin, settings)._replace(at_least=True)
            quantity = f"test loss of {label_of(runs[subject])}, final ÷ at lowest validation loss"
            yield Evidence(suite, dataset, quantity, judgment, sample_of(final))


def _final_loss(cube: xr.Dataset) -> xr.DataArray:
    """Return the test loss that each run ends with; how one would have ended that diverged is not known."""
    return cube["value"].isel(time=-1, drop=True).sel(metric="test_loss", drop=True).where(~cube["diverged"])


def _final_gap(cube: xr.Dataset) -> xr.DataArray:
    """Return the generalization gap that each run ends with, likewise."""
    return final_values(cube)["generalization_gap"].where(~cube["diverged"])


def generalizes_worse(study: Study, subject: str, reference: str) -> Iterator[Evidence]:
    """Weigh whether an optimizer's generalization gap, final test less training loss, is at least another's."""
    settings = study.config.claims
    for suite, dataset, runs in runs_by_dataset(study):
        if subject in runs and reference in runs:
            above, below = (runs[key].each(_final_gap) for key in (subject, reference))
            judgment = judge_difference(above, below, 0.0, settings)._replace(at_least=True)
            quantity = f"generalization gap, {label_of(runs[subject])} − {label_of(runs[reference])}"
            yield Evidence(suite, dataset, quantity, judgment, sample_of(above))


def learning_rate_grows(study: Study, subject: str) -> Iterator[Evidence]:
    """Weigh whether the learning rate is higher in the last quarter of the steps than in the first."""
    settings = study.config.claims
    for suite, dataset, runs in runs_by_dataset(study):
        if subject not in runs:
            continue
        growth = runs[subject].each(_growth)
        if growth.isnull().all():
            continue
        # A run that diverged has no last quarter: the median of a resample with one could be anything.
        bounds = interval(resampled(growth, settings), settings.confidence)
        judgment = Judgment(float(growth.median()), *bounds, 1.0, at_least=True, is_strict=True)
        quantity = f"learning rate of {label_of(runs[subject])}, last ÷ first quarter of the steps"
        yield Evidence(suite, dataset, quantity, judgment, sample_of(growth))


def _growth(cube: xr.Dataset) -> xr.DataArray:
    """Return each run's learning rate in the last quarter of the steps over that in the first, of shape (seed,)."""
    rates = cube["value_by_step"].sel(metric="lr", drop=True).isel(step=slice(1, None))
    # Records are dense at first: as they are, most of the first quarter's would be of its first steps.
    first, last = (int(rates["step"][end]) for end in (0, -1))
    steps = np.unique(np.linspace(first, last, min(last, _STEPS)).round().astype(int))
    held = rates.sel(step=steps, method="ffill")
    parts = steps <= max(first, last / 4), steps > 3 * last / 4
    early, late = (held.isel(step=part).median("step") for part in parts)
    return (late / early).where(early > 0).astype(float)


def ranks_high(study: Study, subject: str) -> Iterator[Evidence]:
    """Weigh whether an optimizer is among the better half on average over datasets.

    The quantity is its place among all optimizers, 0 for the best and 1 for the worst, its mean over datasets that
    have several seeds.
    """
    settings = study.config.claims
    for suite in study.config.suites:
        places: dict[str, np.ndarray] = {}
        estimates, measures, sample = [], set(), Sample(0)
        for of_suite, dataset, runs in runs_by_dataset(study):
            others = [key for key in runs if key != subject and key not in study.config.factorial_optimizers]
            if of_suite != suite or subject not in runs or not others:
                continue
            values = [runs[key].each(performance) for key in (subject, *others)]
            if min(map(len, values)) < 2:
                continue
            # Runs on different datasets share nothing.
            medians = np.array([resampled(one, settings, stream=len(places)) for one in values])
            found = np.array([[np.median(one)] for one in values])
            places[dataset] = _place(medians)
            estimates.append(_place(found))
            measures.add(measure_of(runs[subject]))
            sample = max(sample, sample_of(values[0]))
        if places:
            bounds = interval(np.mean(list(places.values()), axis=0), settings.confidence)
            judgment = Judgment(float(np.mean(estimates)), *bounds, 0.5, is_ratio=False)
            quantity = f"mean place by {' or '.join(sorted(measures))}, 0 best and 1 worst"
            where = f"{len(places)} datasets"
            yield Evidence(suite, where, quantity, judgment, sample, datasets=tuple(places))


def _place(medians: np.ndarray) -> np.ndarray:
    """Return the place of the first row among all, ties shared: 0 for the best and 1 for the worst."""
    better = (medians[1:] < medians[0]).sum(axis=0) + 0.5 * (medians[1:] == medians[0]).sum(axis=0)
    place: np.ndarray = better / (len(medians) - 1)
    return place
