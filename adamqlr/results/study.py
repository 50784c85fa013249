"""A study's results as figures, tables and claims read them: cubes with their names, in the order of legends."""

from collections.abc import Mapping
from typing import NamedTuple

import xarray as xr

from adamqlr.errors import UserError
from adamqlr.results.published import Key, Value
from adamqlr.results.statistics import Resampling
from adamqlr.study.case import Case
from adamqlr.study.config import StudyConfig
from adamqlr.study.optimizers import OPTIMIZERS, OptimizerSpec
from adamqlr.study.space import Space


class Pair(NamedTuple):
    """One cube and what it is of.

    Attributes:
        dataset: The dataset's key.
        spec: The optimizer.
        cube: The cube.
    """

    dataset: str
    spec: OptimizerSpec
    cube: xr.Dataset

    @property
    def optimizer(self) -> str:
        """The optimizer's key."""
        return self.spec.key

    @property
    def dataset_label(self) -> str:
        """The dataset's name."""
        return str(self.cube.attrs["dataset_label"])

    @property
    def optimizer_label(self) -> str:
        """The optimizer's name."""
        return str(self.cube.attrs["optimizer_label"])

    @property
    def is_trajectory(self) -> bool:
        """Whether the pair is of a problem without data, of which the parameters were recorded."""
        return "parameters" in self.cube


class Study(NamedTuple):
    """A study's results.

    Attributes:
        tree: The study's file, opened.
        config: The configuration in force.
        published: What others published, where the user put it beside the results.
        others: Repetitions: the files of runs of the study with other seeds, opened. Claims are about them as well.
    """

    tree: xr.DataTree
    config: StudyConfig
    published: Mapping[Key, Value] = {}
    others: tuple[xr.DataTree, ...] = ()

    @property
    def resampling(self) -> Resampling:
        """How the uncertainty of medians is estimated."""
        return Resampling(self.config.statistics.resamples, self.config.statistics.seed)

    def ordered(self, optimizers: "xr.DataTree") -> list[tuple[OptimizerSpec, xr.Dataset]]:
        """Return what each optimizer's node holds, in the order of legends."""
        found = optimizers.children
        keys = list(dict.fromkeys([*OPTIMIZERS, *self.config.optimizers, *found]))
        return [(self.spec(key), found[key].to_dataset()) for key in sorted(found, key=keys.index)]

    def spec(self, optimizer: str) -> OptimizerSpec:
        """Return what an optimizer is, though the configuration in force may leave it out by now."""
        is_left_out = optimizer in OPTIMIZERS and optimizer not in self.config.optimizers
        return OPTIMIZERS[optimizer] if is_left_out else self.config.spec(optimizer)

    def space(self, suite: str, dataset: str, optimizer: str) -> Space | None:
        """Return what was tuned; None where the configuration in force leaves the pair out by now."""
        config = self.config
        is_there = suite in config.suites and dataset in config.datasets and optimizer in config.optimizers
        return Case(config, suite, dataset, optimizer).space if is_there else None

    def pairs(self, suite: str) -> list[Pair]:
        """Return a suite's cubes, by dataset as in the study and by optimizer as in legends.

        Raises:
            UserError: The study has no such suite.
        """
        if suite not in self.tree.children:
            raise UserError(f"suite '{suite}': the study's file has {', '.join(self.tree.children)}")
        return [
            Pair(dataset, spec, cube)
            for dataset, node in self.tree[suite].children.items()
            for spec, cube in self.ordered(node)
        ]

    def published_of(self, suite: str, pair: Pair) -> dict[str, Value]:
        """Return what was published on a pair, by metric."""
        of_pair = (suite, pair.dataset, pair.optimizer)
        return {key.metric: value for key, value in self.published.items() if key[:3] == of_pair}

    def test_pairs(self, suite: str) -> list[Pair]:
        """Return a suite's cubes of problems that have a test set."""
        return [pair for pair in self.pairs(suite) if not pair.is_trajectory]


def by_dataset(pairs: list[Pair]) -> dict[str, list[Pair]]:
    """Group pairs by dataset."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.dataset, []).append(pair)
    return groups
