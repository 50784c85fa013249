"""What heuristics do for each direction of a factorial: test losses relative to those with its first heuristics."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from adamqlr.results.pairs import Pair, Study, by_dataset
from adamqlr.results.statistics import Resampling

Array = NDArray[np.float64]


class Cell(NamedTuple):
    """One direction with one combination of heuristics on one dataset.

    Attributes:
        direction: The direction's name in the configuration.
        heuristics: The combination's.
        pair: Its runs.
        reference: The runs of the same direction with the first heuristics.
    """

    direction: str
    heuristics: str
    pair: Pair
    reference: Pair


class Ratio(NamedTuple):
    """A ratio of medians over seeds and its bootstrap interval; NaN where both medians are infinite."""

    estimate: float
    lower: float
    upper: float


def cells_of(study: Study, suite: str, factorial: str) -> dict[str, list[Cell]]:
    """Return a factorial's cells for each dataset; directions of which the first heuristics are missing have none."""
    layout = study.config.factorials[factorial]
    cells: dict[str, list[Cell]] = {}
    for dataset, group in by_dataset(study.test_pairs(suite)).items():
        pairs = {pair.optimizer: pair for pair in group}
        for direction in layout.directions:
            reference = pairs.get(layout.optimizer_of(direction, layout.first))
            for heuristics in layout.heuristics if reference else ():
                pair = pairs.get(layout.optimizer_of(direction, heuristics))
                if pair and reference:
                    cells.setdefault(dataset, []).append(Cell(direction, heuristics, pair, reference))
    return cells


def ratios_of(cell: Cell, resampling: Resampling) -> Iterator[tuple[str, Ratio]]:
    """Yield the name of each measure and the cell's ratio of it to its reference's."""
    for name, measure in MEASURES.items():
        yield name, ratio_of_medians(measure(cell.pair.cube), measure(cell.reference.cube), resampling)


def final_loss(cube: xr.Dataset) -> Array:
    """Return the test loss that each run ends with, +inf where it diverged."""
    return cube["value_by_step"].sel(metric="test_loss").isel(step=-1).values.astype(float)


def best_loss(cube: xr.Dataset) -> Array:
    """Return each run's test loss where its validation loss is lowest: what stopping there would have kept.

    A run that diverges later keeps it, too.
    """
    validation, test = (cube["value_by_step"].sel(metric=f"{part}_loss").values for part in ("validation", "test"))
    lowest = np.where(np.isnan(validation), np.inf, validation).argmin(axis=1)
    return np.take_along_axis(test, lowest[:, None], axis=1)[:, 0].astype(float)


MEASURES = {"final": final_loss, "best": best_loss}


def ratio_of_medians(above: Array, below: Array, resampling: Resampling) -> Ratio:
    """Return the ratio of two medians over seeds, and the 95 % percentile interval of its bootstrap resamples.

    Each set is resampled on its own. A median of +inf has a ratio of +inf to a finite one, which has a ratio of 0 to
    it; the ratio of two infinite ones could be anything.
    """
    generator = np.random.default_rng(resampling.seed)
    medians = [
        np.median(values[generator.integers(len(values), size=(resampling.resamples, len(values)))], axis=1)
        for values in (above, below)
    ]
    found = _divide(*(np.median(values, keepdims=True) for values in (above, below)))
    ratios = _divide(*medians)
    lower = np.quantile(np.where(np.isnan(ratios), 0.0, ratios), 0.025, method="inverted_cdf")
    upper = np.quantile(np.where(np.isnan(ratios), np.inf, ratios), 0.975, method="inverted_cdf")
    return Ratio(float(found[0]), float(lower), float(upper))


def _divide(above: Array, below: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.divide(above, below)
    return np.where((above == below) & np.isfinite(above), 1.0, ratio)
