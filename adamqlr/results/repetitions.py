"""Repetitions: runs of one study with other seeds, and so other searches, over which claims are weighed together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from adamqlr.errors import UserError
from adamqlr.results.study import Study
from adamqlr.results.study_file import THINNED, open_study, study_config
from adamqlr.study.config import StudyConfig
from adamqlr.study.names import TUNING

# The coordinate of runs that says which repetition each is of.
REPETITION = "repetition"
# What may differ between repetitions, beside the numbers of seeds. But for the seed, it decides no run's numbers.
_MAY_DIFFER = {"name", "seed", "data_dir", "ablations", "statistics"}


class Sample(NamedTuple):
    """What a median is of.

    Attributes:
        seeds: Runs, those of all repetitions together.
        repetitions: Repetitions of the study; 0 where it is not repeated.
    """

    seeds: int
    repetitions: int = 0

    @property
    def units(self) -> int:
        """How many were drawn independently: repetitions, or else seeds."""
        return self.repetitions or self.seeds


class Runs(NamedTuple):
    """The runs of one optimizer on one dataset.

    Attributes:
        cubes: Their cubes, one of each repetition of the study.
    """

    cubes: tuple[xr.Dataset, ...]

    @property
    def attrs(self) -> Mapping[str, Any]:
        """What the cubes' attributes say of the optimizer and the dataset."""
        return self.cubes[0].attrs

    def each(self, quantity: Callable[[xr.Dataset], xr.DataArray]) -> xr.DataArray:
        """Return a quantity of each run, of shape (seed,), with the coordinate ``repetition`` if there are several.

        Args:
            quantity: Returns that of a cube's runs, of shape (seed,).
        """
        values = [quantity(cube) for cube in self.cubes]
        if len(values) == 1:
            return values[0]
        numbers = np.repeat(np.arange(len(values)), [len(one) for one in values])
        joined = np.concatenate([one.values for one in values])
        return xr.DataArray(joined, dims="seed", coords={REPETITION: ("seed", numbers)})


def sample_of(values: xr.DataArray) -> Sample:
    """Return what a median of values from :meth:`Runs.each` is of."""
    repetitions = len(np.unique(values[REPETITION])) if REPETITION in values.coords else 0
    return Sample(values.sizes["seed"], repetitions)


@contextmanager
def open_repetitions(paths: Sequence[Path], config: StudyConfig | None) -> Iterator[Study]:
    """Open a study, or several that are alike but for name and seed, in whichever order.

    Args:
        paths: Each a study's file, or its folder ``results/<study>``.
        config: How results are weighed; as the studies say if not given.

    Raises:
        UserError: A file is no study's, or was thinned, or the studies are no repetitions of each other.
    """
    ordered = list(paths)
    if len(paths) > 1:
        configs = {path: study_config(path) for path in paths}
        ordered.sort(key=lambda path: configs[path].seed)
        _check_alike(ordered, configs, _MAY_DIFFER | ({"claims"} if config else set()))
    config = config or study_config(ordered[0])
    with ExitStack() as stack:
        tree, *others = (stack.enter_context(open_study(path, config=config)) for path in ordered)
        for path, one in zip(ordered, (tree, *others), strict=True):
            if left := one.attrs.get(THINNED):
                raise UserError(f"{path} holds {left}, by which verdicts would be others: weigh the study it is of")
        _check_same_cubes(ordered, [tree, *others])
        yield Study(tree, config, others=tuple(others))


def _check_alike(paths: Sequence[Path], configs: Mapping[Path, StudyConfig], may_differ: set[str]) -> None:
    """Check studies that are in the order of their seeds."""
    settings = [configs[path].model_dump(mode="json", exclude=may_differ) for path in paths]
    for path, own in zip(paths, settings, strict=True):
        for key, ours, theirs in _differences(settings[0], own):
            difference = f"{key}: {ours} in {paths[0]}, {theirs} in {path}"
            raise UserError(f"{difference}: repetitions differ in name and seed alone")
    for before, path in pairwise(paths):
        if (seed := configs[path].seed) == configs[before].seed:
            raise UserError(
                f"{before} and {path}: both have the seed {seed}, so neither repeats the other: run one with another"
            )


def _differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield key and both values of settings that differ, but for how many seeds there are."""
    for key in {**ours, **theirs}:
        one, other = (settings.get(key, "nothing") for settings in (ours, theirs))
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{prefix}{key}.")
        elif one != other and key != "seeds":
            one, other = ("a section" if isinstance(value, dict) else value for value in (one, other))
            yield f"{prefix}{key}", one, other


def _check_same_cubes(paths: Sequence[Path], trees: Sequence[xr.DataTree]) -> None:
    found = [[leaf.path for leaf in tree.leaves if not leaf.path.startswith(f"/{TUNING}/")] for tree in trees]
    for path, cubes in zip(paths, found, strict=True):
        for other, theirs in zip(paths, found, strict=True):
            if missing := [cube for cube in theirs if cube not in cubes]:
                raise UserError(f"{path}: no cube '{missing[0].strip('/')}', which {other} has")
