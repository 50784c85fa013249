"""Axes: what is drawn is seen, negative values among it."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.scale import SymmetricalLogTransform

from adamqlr.figures.limits import limit_signed_height
from adamqlr.figures.panels import Panel, resolve_sign

SIGNED = Panel("lr", "Learning rate α", "signed", bounds=(1e-8, 1e4))


def summary(median: list[float], lower: list[float]) -> xr.Dataset:
    return xr.Dataset({"median": ("time", median), "lower": ("time", lower)})


def test_an_axis_is_logarithmic_until_something_drawn_is_negative() -> None:
    nan = float("nan")
    positive = summary([nan, 0.1, 0.2], [nan, 0.05, 0.1])
    assert resolve_sign(SIGNED, [positive]) == SIGNED._replace(scale="log")
    for negative in (summary([0.1, -0.1], [-0.1, -0.2]), summary([0.1, 0.1], [0.1, -1e-6])):
        found = resolve_sign(SIGNED, [positive, negative])
        assert (found.scale, found.bounds) == ("symlog", (-1e4, 1e4))


@given(
    medians=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8),
    depths=st.lists(st.floats(0, 1e6), min_size=8, max_size=8),
)
@example(medians=[5e-324], depths=[0.0] * 8)
@settings(max_examples=50, deadline=None)
def test_a_signed_axis_shows_every_median_and_negative_band_within_its_bounds(
    medians: list[float], depths: list[float]
) -> None:
    lower = np.array(medians) - depths[: len(medians)]
    figure, axes = plt.subplots()
    limit_signed_height(axes, medians, lower, (-1e4, 1e4))
    low, high = axes.get_ylim()
    plt.close(figure)
    assert low < 0 < high
    shown = np.clip([*medians, *lower[lower < 0]], -1e4, 1e4)
    assert low <= shown.min()
    assert shown.max() <= high


@pytest.mark.parametrize("medians", [[float("nan")], [float("inf"), float("nan")], [0.0, 0.0]])
def test_a_signed_axis_of_nothing_is_an_axis(medians: list[float]) -> None:
    figure, axes = plt.subplots()
    limit_signed_height(axes, medians, medians)
    assert np.isfinite(axes.get_ylim()).all()
    plt.close(figure)


def linear_below(axes: Axes) -> float:
    transform = axes.yaxis.get_transform()
    assert isinstance(transform, SymmetricalLogTransform)
    return transform.linthresh


def test_a_signed_axis_is_linear_below_the_smaller_medians_and_spans_few_decades() -> None:
    figure, axes = plt.subplots()
    limit_signed_height(axes, [1e-3] * 5 + [0.5] * 5, [-0.1] * 10)
    assert linear_below(axes) == pytest.approx(1e-3)
    limit_signed_height(axes, [1e-12] * 5 + [10.0] * 5, [-0.1] * 10)
    assert linear_below(axes) == pytest.approx(1e-5)
    plt.close(figure)
