"""What heuristics do for each direction of a factorial: test losses relative to those with its first heuristics."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr

from adamqlr.results.bootstrap import divide, interval, resampled_medians
from adamqlr.results.judged import at_lowest_validation_loss
from adamqlr.results.statistics import Resampling
from adamqlr.results.study import Pair, Study, by_dataset


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


def final_loss(cube: xr.Dataset) -> xr.DataArray:
    """Return the test loss that each run ends with, +inf where it diverged."""
    return cube["value_by_step"].isel(step=-1, drop=True).sel(metric="test_loss", drop=True).astype(float)


def best_loss(cube: xr.Dataset) -> xr.DataArray:
    """Return each run's test loss where its validation loss is lowest, which it keeps if it diverges later."""
    return at_lowest_validation_loss(cube).sel(metric="test_loss", drop=True).astype(float)


MEASURES = {"final": final_loss, "best": best_loss}


def ratio_of_medians(above: xr.DataArray, below: xr.DataArray, resampling: Resampling) -> Ratio:
    """Return the ratio of two medians over seeds, and the 95 % percentile interval of its bootstrap resamples.

    Where both have the same seeds, the same ones are drawn. A median of +inf has a ratio of +inf to a finite one, which
    has a ratio of 0 to it; the ratio of two infinite ones could be anything.
    """
    medians = [
        resampled_medians(
            values.values, resampling.resamples, np.random.default_rng([resampling.seed, *values["seed"].values])
        )
        for values in (above, below)
    ]
    found = divide(*(np.median(values, keepdims=True) for values in (above, below)))
    return Ratio(float(found[0]), *interval(divide(*medians), 0.95))
