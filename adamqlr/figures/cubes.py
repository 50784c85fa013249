"""Cubes of one suite, in the order in which figures and tables show them."""

from typing import NamedTuple

import xarray as xr

from adamqlr.errors import UserError
from adamqlr.figures.lines import order


class Pair(NamedTuple):
    """One cube and its names.

    Attributes:
        dataset: The dataset's key.
        optimizer: The optimizer's key.
        cube: The cube.
    """

    dataset: str
    optimizer: str
    cube: xr.Dataset

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


def pairs_of(study: xr.DataTree, suite: str) -> list[Pair]:
    """Return a suite's cubes, by dataset as in the study and by optimizer as in legends.

    Raises:
        UserError: The study has no such suite.
    """
    if suite not in study.children:
        raise UserError(f"suite '{suite}': the study's file has {', '.join(study.children)}")
    return [
        Pair(dataset, optimizer, leaf.to_dataset())
        for dataset, node in study[suite].children.items()
        for optimizer, leaf in sorted(node.children.items(), key=lambda child: order(child[0]))
    ]


def by_dataset(pairs: list[Pair]) -> dict[str, list[Pair]]:
    """Group pairs by dataset."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.dataset, []).append(pair)
    return groups
