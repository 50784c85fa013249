"""What the course of training says about a statement, and how optimizers rank."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from adamqlr.claims.evidence import Evidence, label_of, runs_by_dataset
from adamqlr.claims.judge import Judgment, judge_difference, judge_ratio, resampled
from adamqlr.results.bootstrap import interval
from adamqlr.results.final import final_values
from adamqlr.results.judged import at_lowest_validation_loss, measure_of, performance
from adamqlr.results.pairs import Study
from adamqlr.results.repetitions import Sample, sample_of


def overfits(study: Study, subject: str) -> Iterator[Evidence]:
    """Weigh whether an optimizer ends with a higher test loss than where its validation loss was lowest."""
    settings = study.config.claims
    for suite, dataset, runs in runs_by_dataset(study):
        if subject in runs:
            final = runs[subject].each(lambda cube: cube["value"].isel(time=-1).sel(metric="test_loss", drop=True))
            best = runs[subject].each(lambda cube: at_lowest_validation_loss(cube).sel(metric="test_loss", drop=True))
            if not best.notnull().all():
                continue
            judgment = judge_ratio(final, [best], 1 + settings.margin, settings)._replace(at_least=True)
            quantity = f"test loss of {label_of(runs[subject])}, final ÷ at lowest validation loss"
            yield Evidence(suite, dataset, quantity, judgment, sample_of(final))


def generalizes_worse(study: Study, subject: str, reference: str) -> Iterator[Evidence]:
    """Weigh whether an optimizer's generalization gap, final test less training loss, is at least another's."""
    settings = study.config.claims
    for suite, dataset, runs in runs_by_dataset(study):
        if subject in runs and reference in runs:
            above, below = (
                runs[key].each(lambda cube: final_values(cube)["generalization_gap"]) for key in (subject, reference)
            )
            judgment = judge_difference(above, below, 0.0, settings)._replace(at_least=True)
            quantity = f"generalization gap, {label_of(runs[subject])} − {label_of(runs[reference])}"
            yield Evidence(suite, dataset, quantity, judgment, sample_of(above))


def learning_rate_grows(study: Study, subject: str) -> Iterator[Evidence]:
    """Weigh whether the learning rate is higher in the last quarter of the recorded steps than in the first."""
    settings = study.config.claims
    for suite, dataset, runs in runs_by_dataset(study):
        if subject not in runs:
            continue
        growth = runs[subject].each(_growth)
        if growth.isnull().all():
            continue
        # A run that diverged has no last quarter: where a resample's median rests on one, it could be anything.
        medians = resampled(growth, settings, np.random.default_rng(0))
        judgment = Judgment(float(growth.median()), *interval(medians, settings.confidence), 1.0, at_least=True)
        quantity = f"learning rate of {label_of(runs[subject])}, last ÷ first quarter of the records"
        yield Evidence(suite, dataset, quantity, judgment, sample_of(growth))


def _growth(cube: xr.Dataset) -> xr.DataArray:
    """Return each run's learning rate in the last quarter of the records over that in the first, of shape (seed,)."""
    rates = cube["value_by_step"].sel(metric="lr", drop=True).isel(step=slice(1, None))
    quarter = max(1, rates.sizes["step"] // 4)
    early, late = (rates.isel(step=part).median("step") for part in (slice(quarter), slice(-quarter, None)))
    return (late / early).where(early > 0).astype(float)


def ranks_high(study: Study, subject: str) -> Iterator[Evidence]:
    """Weigh whether an optimizer is among the better half on average over datasets.

    The quantity is its place among all optimizers, 0 for the best and 1 for the worst, its mean over datasets that
    have several seeds.
    """
    settings = study.config.claims
    for suite in study.config.suites:
        generator, places, estimates, measures, sample = np.random.default_rng(0), {}, [], set(), Sample(0)
        for of_suite, dataset, runs in runs_by_dataset(study):
            others = [key for key in runs if key != subject and key not in study.config.factorial_optimizers]
            if of_suite != suite or subject not in runs or not others:
                continue
            values = [runs[key].each(performance) for key in (subject, *others)]
            if min(map(len, values)) < 2:
                continue
            medians = np.array([resampled(one, settings, generator) for one in values])
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
