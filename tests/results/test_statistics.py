"""Medians and their uncertainty, against scipy and by hand."""

import itertools

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from adamqlr.results.statistics import Resampling, median_over_seeds

INF = float("inf")


def over_seeds(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, dims=("seed", "time"))


def test_agrees_with_scipys_bootstrap() -> None:
    values = np.random.default_rng(0).normal(size=(40, 3))
    ours = median_over_seeds(over_seeds(values), Resampling(4000, 1))
    for column in range(3):
        reference = scipy.stats.bootstrap(
            (values[:, column],), np.median, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
        )
        # Both estimate by 4,000 random resamples; the tolerance is several times their Monte Carlo error.
        assert float(ours["std"][column]) == pytest.approx(reference.standard_error, rel=0.08)
        low, high = reference.confidence_interval
        assert float(ours["lower"][column]) == pytest.approx(low, abs=0.08)
        assert float(ours["upper"][column]) == pytest.approx(high, abs=0.08)
        assert float(ours["median"][column]) == np.median(values[:, column])


def test_agrees_with_scipys_bootstrap_where_some_runs_diverged() -> None:
    """A tenth of the runs at +inf, in which case the median's distribution is finite, but for one resample in 10^9."""
    values = np.random.default_rng(1).normal(size=(50, 1))
    values[::10] = INF
    ours = median_over_seeds(over_seeds(values), Resampling(4000, 1))
    reference = scipy.stats.bootstrap(
        (values[:, 0],), np.median, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    )
    assert float(ours["std"][0]) == pytest.approx(reference.standard_error, rel=0.08)
    assert float(ours["lower"][0]) == pytest.approx(reference.confidence_interval.low, abs=0.08)
    assert float(ours["upper"][0]) == pytest.approx(reference.confidence_interval.high, abs=0.08)
    assert float(ours["median"][0]) == np.sort(values[:, 0])[24:26].mean()


@pytest.mark.parametrize("values", [[1.0, 2.0, 9.0], [1.0, 2.0, INF], [1.0, INF, INF], [-INF, 0.5, 0.9]])
def test_agrees_with_all_resamples_of_three_runs(values: list[float]) -> None:
    """Three runs have 27 equally likely resamples, whose medians can be listed."""
    medians = np.sort([np.median(resample) for resample in itertools.product(values, repeat=3)])
    ours = median_over_seeds(over_seeds(np.array(values)[:, None]), Resampling(20_000, 0))
    # Ranks 0 and 26 of 27 hold the 2.5 and 97.5 percentiles.
    assert float(ours["lower"][0]) == medians[0]
    assert float(ours["upper"][0]) == medians[26]
    assert float(ours["median"][0]) == values[1]
    assert float(ours["mean"][0]) == pytest.approx(medians.mean(), rel=0.02)
    if np.isfinite(values).all():
        # 7, 13 and 7 of the 27 are 1, 2 and 9.
        assert float(ours["mean"][0]) == pytest.approx((7 * 1 + 13 * 2 + 7 * 9) / 27, rel=0.02)
        assert float(ours["std"][0]) == pytest.approx(medians.std(), rel=0.02)


def test_by_hand() -> None:
    ours = median_over_seeds(over_seeds(np.array([[1.0, 1.0], [2.0, 1.0], [9.0, 1.0]])), Resampling(50, 0))
    assert ours["median"].values.tolist() == [2, 1]
    assert ours["std"].values[1] == 0
    assert ours["mean"].values[1] == 1
    assert 1 <= ours["lower"].values[0] <= ours["upper"].values[0] <= 9


def test_infinities_stay_and_undefined_values_do_not_count() -> None:
    nan = float("nan")
    values = np.array([[1.0, 1.0, nan, nan], [2.0, INF, 4.0, nan], [3.0, INF, 6.0, nan], [4.0, INF, nan, nan]])
    ours = median_over_seeds(over_seeds(values), Resampling(50, 0))
    assert ours["median"].values[:3].tolist() == [2.5, INF, 5.0]
    assert np.isnan(ours["median"].values[3])
    assert ours["upper"].values[1] == INF
    assert not np.isnan(ours["mean"].values[1])


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=15),
    diverged=st.integers(0, 14),
    sign=st.sampled_from([1.0, -1.0]),
)
@settings(max_examples=100, deadline=None)
def test_a_diverged_run_never_improves_a_median(values: list[float], diverged: int, sign: float) -> None:
    """Losses (sign 1) are better the lower, accuracies (sign −1) the higher."""
    before = np.array(values)[:, None]
    after = before.copy()
    after[diverged % len(values)] = sign * INF
    medians = [float(median_over_seeds(over_seeds(v), Resampling(2, 0))["median"][0]) for v in (before, after)]
    assert sign * medians[1] >= sign * medians[0]


def test_the_seed_decides_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = over_seeds(np.random.default_rng(3).normal(size=(12, 30)))
    whole = median_over_seeds(values, Resampling(50, 4))
    monkeypatch.setattr("adamqlr.results.statistics._BLOCK", 700)
    xr.testing.assert_allclose(whole, median_over_seeds(values, Resampling(50, 4)), rtol=1e-14)
    assert not whole.identical(median_over_seeds(values, Resampling(50, 5)))
