"""What a study's cubes say about a statement."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import xarray as xr

from adamqlr.claims.judge import Judgment, Verdict, judge_ratio, judge_spread, judge_spreads
from adamqlr.results.judged import measure_of, performance
from adamqlr.results.repetitions import Runs, Sample, sample_of
from adamqlr.results.study import Study, by_dataset
from adamqlr.study.names import SENSITIVITY


def runs_by_dataset(study: Study) -> Iterator[tuple[str, str, dict[str, Runs]]]:
    """Yield suite, dataset and the runs of its optimizers, for everything that has a test set."""
    for suite in study.config.suites:
        if suite in study.tree.children:
            for dataset, pairs in by_dataset(study.test_pairs(suite)).items():
                runs = {pair.optimizer: _runs(study, f"{suite}/{dataset}/{pair.optimizer}") for pair in pairs}
                yield suite, dataset, runs


def sweeps_of(study: Study, parameter: str, family: str) -> Iterator[tuple[str, dict[float, Runs]]]:
    """Yield name and runs by value of a family's sensitivity studies of one hyperparameter."""
    present = study.tree[SENSITIVITY].children if SENSITIVITY in study.tree.children else {}
    for name, node in present.items():
        runs = {float(value): _runs(study, f"{SENSITIVITY}/{name}/{value}") for value in node.children}
        attrs = next(iter(runs.values())).attrs
        if attrs["sweep_parameter"] == parameter and study.spec(attrs["optimizer"]).family == family:
            yield name, runs


def _runs(study: Study, path: str) -> Runs:
    return Runs(tuple(tree[path].to_dataset() for tree in (study.tree, *study.others)))


class Evidence(NamedTuple):
    """What one dataset of one suite, or one sensitivity study, says.

    Attributes:
        suite: The suite.
        dataset: The dataset.
        quantity: What was measured.
        judgment: Its value and what follows.
        sample: What each median is of; the most of any dataset, where there are several.
        sweeps: The sensitivity studies that it is about.
        wanted_units: Estimate of the sample's units that would decide it, where it is not by the width of the interval.
        datasets: The datasets, where there are several.
    """

    suite: str
    dataset: str
    quantity: str
    judgment: Judgment
    sample: Sample
    sweeps: tuple[str, ...] = ()
    wanted_units: float | None = None
    datasets: tuple[str, ...] = ()

    @property
    def units_to_decide(self) -> float:
        """See :meth:`adamqlr.claims.judge.Judgment.units_to_decide`."""
        return self.judgment.units_to_decide(self.sample.units) if self.wanted_units is None else self.wanted_units


class Wanted(StrEnum):
    """What is claimed of one optimizer against another."""

    BETTER = "better"
    NO_WORSE = "no worse"
    COMPARABLE = "comparable"


def pairwise(study: Study, subject: str, reference: str, wanted: Wanted = Wanted.BETTER) -> Iterator[Evidence]:
    """Weigh one optimizer against another at the end of training; comparable is what is as good up to the margin."""
    limit = 1 + study.config.claims.margin if wanted is Wanted.COMPARABLE else 1.0
    for suite, dataset, runs in runs_by_dataset(study):
        if subject in runs and reference in runs:
            above, below = (runs[key].each(performance) for key in (subject, reference))
            quantity = f"{measure_of(runs[subject])}, {label_of(runs[subject])} ÷ {label_of(runs[reference])}"
            judgment = judge_ratio(above, [below], limit, study.config.claims)
            judgment = judgment._replace(is_strict=wanted is Wanted.BETTER)
            yield Evidence(suite, dataset, quantity, judgment, sample_of(above))


def against_best_baseline(study: Study, subject: str) -> Iterator[Evidence]:
    """Weigh an optimizer's end against the best of all tuned baselines at that time, or at their ends if earlier.

    Which baseline is the best is asked in every resample: it must not win by being chosen on the seeds that it is
    judged by.
    """
    for suite, dataset, runs in runs_by_dataset(study):
        baselines = [
            one
            for key, one in runs.items()
            if study.spec(key).is_baseline
            and key not in study.config.factorial_optimizers
            and study.space(suite, dataset, key) != {}
        ]
        if subject not in runs or not baselines:
            continue
        time = float(runs[subject].each(itemgetter("final_time")).median())
        # Half of the runs end a moment after their median: the subject's, and all where their time is fixed.
        is_fixed = study.config.suites[suite].budget == "runtime"
        below = [one.each(performance if is_fixed else partial(performance, time=time)) for one in baselines]
        above = runs[subject].each(performance)
        best = baselines[int(np.argmin([float(values.median()) for values in below]))]
        quantity = (
            f"{measure_of(best)} after {time:.3g} s, {label_of(runs[subject])} ÷ best of {len(baselines)} tuned "
            f"baselines ({label_of(best)})"
        )
        judgment = judge_ratio(above, below, 1 + study.config.claims.margin, study.config.claims)
        yield Evidence(suite, dataset, quantity, judgment, sample_of(above))


def effect_varies(study: Study, subject: str, reference: str) -> Iterator[Evidence]:
    """Weigh whether one optimizer is surely better than another on some dataset, and surely worse on another.

    The quantity is the share of datasets on which the less frequent of both happens: counted by estimates, by what is
    sure, and by what is not excluded.
    """
    for suite in study.config.suites:
        items = [item for item in pairwise(study, subject, reference) if item.suite == suite]
        judged = [item.judgment for item in items]
        if len(judged) < 2:
            continue
        better, worse = ([j.upper < 1 for j in judged], [j.lower > 1 for j in judged])
        shares = (
            _minority([j.estimate < 1 for j in judged], [j.estimate > 1 for j in judged]),
            _minority(better, worse),
            _minority([not sure for sure in worse], [not sure for sure in better]),
        )
        quantity = f"share of the rarer effect ({sum(better)} surely better, {sum(worse)} surely worse)"
        judgment = Judgment(*shares, 1 / len(judged), at_least=True, is_ratio=False)
        sample = max(item.sample for item in items)
        wanted = _units_to_decide(items, sample.units) if judgment.verdict is Verdict.UNDECIDED else sample.units
        where, datasets = f"{len(judged)} datasets", tuple(item.dataset for item in items)
        yield Evidence(suite, where, quantity, judgment, sample, wanted_units=wanted, datasets=datasets)


def _units_to_decide(items: Sequence[Evidence], units: int) -> float:
    """Estimate the units that make surely better and surely worse of a dataset each, or the same of all datasets."""
    better, worse = (
        [item.units_to_decide / item.sample.units for item in items if (item.judgment.estimate < 1) == side]
        for side in (True, False)
    )
    # What cannot be told of one dataset does not matter where another is sure.
    times = np.max([np.fmin.reduce(better), np.fmin.reduce(worse)] if better and worse else better + worse)
    # Less what rounding may have added to a whole number.
    return float(np.ceil(units * times - 1e-9))


def matters_little(study: Study, parameter: str) -> Iterator[Evidence]:
    """Weigh whether the worst of a hyperparameter's values is at most some times the best."""
    settings = study.config.claims
    for name, runs in sweeps_of(study, parameter, "AdamQLR"):
        values = [one.each(performance) for one in runs.values()]
        first = next(iter(runs.values()))
        quantity = f"{measure_of(first)}, worst ÷ best of {len(values)} values ({name})"
        judgment = judge_spread(values, settings.flatness, settings)
        yield Evidence(SENSITIVITY, str(first.attrs["dataset"]), quantity, judgment, sample_of(values[0]), (name,))


def matters_more(study: Study, family: str, parameter: str) -> Iterator[Evidence]:
    """Weigh whether a hyperparameter matters more to another family than to AdamQLR, on the same dataset.

    The quantity is the ratio of the spreads, worst ÷ best, over the values that both studies have; but for those at
    which the medians of both diverge, where neither is the better.
    """
    settings = study.config.claims
    for name, ours in sweeps_of(study, parameter, "AdamQLR"):
        for other, theirs in sweeps_of(study, parameter, family):
            attrs = [next(iter(runs.values())).attrs for runs in (theirs, ours)]
            if attrs[0]["dataset"] != attrs[1]["dataset"]:
                continue
            shared = _comparable(theirs, ours)
            if len(shared) < 2:
                continue
            above, below = zip(*shared, strict=True)
            quantity = f"spread over {len(shared)} values of {parameter}, {other} ÷ {name}"
            judgment = judge_spreads(above, below, 1.0, settings)._replace(at_least=True, is_strict=True)
            sample = min(map(sample_of, above + below))
            yield Evidence(SENSITIVITY, str(attrs[0]["dataset"]), quantity, judgment, sample, (other, name))


def value_is_best(study: Study, parameter: str, choose: Callable[[list[float]], float]) -> Iterator[Evidence]:
    """Weigh whether one value of a hyperparameter is as good as the best of the others, up to the margin."""
    settings = study.config.claims
    for name, runs in sweeps_of(study, parameter, "AdamQLR"):
        value = choose(list(runs))
        values = {at: one.each(performance) for at, one in runs.items()}
        chosen = values.pop(value)
        quantity = f"{measure_of(runs[value])} at {value:g} ÷ best of {len(values)} other values ({name})"
        judgment = judge_ratio(chosen, list(values.values()), 1 + settings.margin, settings)
        dataset = str(runs[value].attrs["dataset"])
        yield Evidence(SENSITIVITY, dataset, quantity, judgment, sample_of(chosen), (name,))


def _comparable(theirs: Mapping[float, Runs], ours: Mapping[float, Runs]) -> list[tuple[xr.DataArray, xr.DataArray]]:
    """Return what runs are judged by, theirs and ours, at each value of both at which not both medians diverge."""
    pairs = [
        (theirs[value].each(performance), runs.each(performance))
        for value in theirs
        for same, runs in ours.items()
        # Values are written with four digits.
        if np.isclose(value, same, rtol=1e-3, atol=0)
    ]
    return [pair for pair in pairs if np.isfinite([float(values.median()) for values in pair]).any()]


def _minority(one: list[bool], other: list[bool]) -> float:
    return min(sum(one), sum(other)) / len(one)


def label_of(runs: Runs) -> str:
    """Return the name of an optimizer."""
    return str(runs.attrs["optimizer_label"])
