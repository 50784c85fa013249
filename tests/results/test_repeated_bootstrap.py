"""The bootstrap of repetitions and their seeds: against all of its resamples, and against what it is for."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from adamqlr.results.bootstrap import interval, resampled_medians, resampled_repetitions

INF = float("inf")


def of(*repetitions: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return values, and which repetition each is of."""
    return np.concatenate(repetitions), np.repeat(np.arange(len(repetitions)), [len(one) for one in repetitions])


@pytest.mark.parametrize(
    "repetitions", [([0.0, 1.0], [10.0, 12.0]), ([3.0], [1.0, 7.0]), ([0.0, INF], [INF, 2.0]), ([1.0], [2.0], [4.0])]
)
def test_agrees_with_all_resamples_of_few_runs(repetitions: tuple[list[float], ...]) -> None:
    chances: Counter[float] = Counter()
    for drawn in product(repetitions, repeat=len(repetitions)):
        resamples = list(product(*(seed for one in drawn for seed in [one] * len(one))))
        for resample in resamples:
            chances[float(np.median(resample))] += 1 / len(repetitions) ** len(repetitions) / len(resamples)
    found = resampled_repetitions(*of(*repetitions), 20_000, np.random.default_rng(0))
    assert set(found) <= set(chances)
    for median, chance in chances.items():
        # Twenty thousand resamples leave a standard error of at most 0.0035.
        assert np.mean(found == median) == pytest.approx(chance, abs=0.015)


def test_where_the_search_decides_it_is_the_bootstrap_of_the_repetitions_medians() -> None:
    generator = np.random.default_rng(0)
    medians = generator.normal(size=7)
    values = np.concatenate([median + 1e-6 * generator.normal(size=3) for median in medians])
    found = resampled_repetitions(values, np.repeat(np.arange(7), 3), 4000, generator)
    plain = resampled_medians(medians, 4000, generator)
    assert found.std() == pytest.approx(plain.std(), rel=0.05)
    np.testing.assert_allclose(interval(found, 0.95, -INF), interval(plain, 0.95, -INF), atol=1e-4)


def test_a_single_repetition_says_nothing_of_the_search() -> None:
    assert np.isnan(resampled_repetitions(*of([1.0, 2.0, 3.0]), 10, np.random.default_rng(0))).all()


def test_a_resample_with_an_unknown_value_is_unknown() -> None:
    found = resampled_repetitions(*of([1.0, 1.0], [float("nan")]), 2000, np.random.default_rng(0))
    # The other repetition is drawn twice.
    assert np.mean(found == 1) == pytest.approx(0.25, abs=0.04)
    assert np.isnan(found).sum() == (found != 1).sum()


def test_intervals_cover_the_search_as_those_of_seeds_do_not() -> None:
    generator, hits = np.random.default_rng(0), np.zeros(2)
    repetition = np.repeat(np.arange(10), 4)
    for _ in range(300):
        values = np.repeat(generator.normal(size=10), 4) + 0.3 * generator.normal(size=40)
        for kind, found in enumerate(
            (resampled_repetitions(values, repetition, 300, generator), resampled_medians(values, 300, generator))
        ):
            lower, upper = interval(found, 0.95, -INF)
            hits[kind] += lower <= 0 <= upper
    covered, plain = hits / 300
    # The true median is 0; the standard error of a share is below 0.03.
    assert covered > 0.9
    assert plain < 0.8
