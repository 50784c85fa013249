"""What the course of training says about a statement, and how optimizers rank."""

from collections.abc import Iterator

import numpy as np

from adamqlr.claims.evidence import Evidence, cubes_by_dataset, label_of
from adamqlr.claims.judge import Judgment, judge_difference, judge_ratio
from adamqlr.results.bootstrap import interval, resampled_medians
from adamqlr.results.final import final_values
from adamqlr.results.judged import at_lowest_validation_loss, measure_of, performance
from adamqlr.results.pairs import Study


def overfits(study: Study, subject: str) -> Iterator[Evidence]:
    """Weigh whether an optimizer ends with a higher test loss than where its validation loss was lowest."""
    settings = study.config.claims
    for suite, dataset, cubes in cubes_by_dataset(study):
        if subject in cubes:
            cube = cubes[subject]
            final = cube["value"].isel(time=-1).sel(metric="test_loss", drop=True)
            best = at_lowest_validation_loss(cube).sel(metric="test_loss", drop=True)
            if not best.notnull().all():
                continue
            judgment = judge_ratio(final, [best], 1 + settings.margin, settings)._replace(at_least=True)
            quantity = f"test loss of {label_of(cube)}, final ÷ at lowest validation loss"
            yield Evidence(suite, dataset, quantity, judgment, cube.sizes["seed"])


def generalizes_worse(study: Study, subject: str, reference: str) -> Iterator[Evidence]:
    """Weigh whether an optimizer's generalization gap, final test less training loss, is at least another's."""
    settings = study.config.claims
    for suite, dataset, cubes in cubes_by_dataset(study):
        if subject in cubes and reference in cubes:
            above, below = (final_values(cubes[key])["generalization_gap"] for key in (subject, reference))
            judgment = judge_difference(above, below, 0.0, settings)._replace(at_least=True)
            quantity = f"generalization gap, {label_of(cubes[subject])} − {label_of(cubes[reference])}"
            yield Evidence(suite, dataset, quantity, judgment, cubes[subject].sizes["seed"])


def learning_rate_grows(study: Study, subject: str) -> Iterator[Evidence]:
    """Weigh whether the learning rate is higher in the last quarter of the recorded steps than in the first."""
    settings = study.config.claims
    for suite, dataset, cubes in cubes_by_dataset(study):
        if subject not in cubes:
            continue
        rates = cubes[subject]["value_by_step"].sel(metric="lr", drop=True).isel(step=slice(1, None))
        quarter = max(1, rates.sizes["step"] // 4)
        early, late = (rates.isel(step=part).median("step") for part in (slice(quarter), slice(-quarter, None)))
        growth = (late / early).where(early > 0).values.astype(float)
        growth = growth[np.isfinite(growth)]
        if not len(growth):
            continue
        medians = resampled_medians(growth, settings.resamples, np.random.default_rng(0))
        judgment = Judgment(float(np.median(growth)), *interval(medians, settings.confidence), 1.0, at_least=True)
        quantity = f"learning rate of {label_of(cubes[subject])}, last ÷ first quarter of the records"
        yield Evidence(suite, dataset, quantity, judgment, len(growth))


def ranks_high(study: Study, subject: str) -> Iterator[Evidence]:
    """Weigh whether an optimizer is among the better half on average over datasets.

    The quantity is its place among all optimizers, 0 for the best and 1 for the worst, its mean over datasets that
    have several seeds.
    """
    settings = study.config.claims
    for suite in study.config.suites:
        generator, places, estimates, measures, seeds = np.random.default_rng(0), [], [], set(), 0
        for of_suite, _, cubes in cubes_by_dataset(study):
            others = [key for key in cubes if key != subject and key not in study.config.factorial_optimizers]
            if of_suite != suite or subject not in cubes or not others:
                continue
            values = [performance(cubes[key]).values.astype(float) for key in (subject, *others)]
            if min(map(len, values)) < 2:
                continue
            medians = np.array([resampled_medians(one, settings.resamples, generator) for one in values])
            found = np.array([[np.median(one)] for one in values])
            places.append(_place(medians))
            estimates.append(_place(found))
            measures.add(measure_of(cubes[subject]))
            seeds = max(seeds, cubes[subject].sizes["seed"])
        if places:
            bounds = interval(np.mean(places, axis=0), settings.confidence)
            judgment = Judgment(float(np.mean(estimates)), *bounds, 0.5, is_ratio=False)
            quantity = f"mean place by {' or '.join(sorted(measures))}, 0 best and 1 worst"
            yield Evidence(suite, f"{len(places)} datasets", quantity, judgment, seeds)


def _place(medians: np.ndarray) -> np.ndarray:
    """Return the place of the first row among all, ties shared: 0 for the best and 1 for the worst."""
    better = (medians[1:] < medians[0]).sum(axis=0) + 0.5 * (medians[1:] == medians[0]).sum(axis=0)
    place: np.ndarray = better / (len(medians) - 1)
    return place
