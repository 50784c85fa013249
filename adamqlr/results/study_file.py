"""A study's results, from its file or its folder: every cube in one tree, beside sensitivity studies and trials."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import netCDF4
import xarray as xr
import yaml

from adamqlr.errors import UserError
from adamqlr.files import Kind, opened
from adamqlr.study.config import StudyConfig, load_config, parse_config
from adamqlr.study.names import CONFIG_NAME
from adamqlr.study.paths import group_files

FILE_NAME = "study.nc"
# The attribute of a file that holds a part of a study's numbers: which.
THINNED = "thinned"


@contextmanager
def open_study(path: Path, *parts: str, config: StudyConfig | None = None) -> Iterator[xr.DataTree]:
    """Open a study's results without loading them; what is used is read when it is used.

    Args:
        path: The study's file, or its folder ``results/<study>``, where each cube is a file.
        parts: Groups to open, such as a suite or a sensitivity study; all of them if none is given.
        config: What belongs to the study, where a folder is opened, and what its datasets and optimizers are called.

    Raises:
        UserError: It is not such a file, has no such part, or a file of a part is missing in the folder.
    """
    with ExitStack() as stack:
        if path.is_dir():
            assert config is not None
            groups = {
                group: stack.enter_context(opened(path / file, Kind.CUBE, Kind.TRIALS))
                for group, file in group_files(config, parts).items()
            }
            attrs: dict[str, Any] = {"study": config.name}
        else:
            # Opened once: the library reads what is said of all groups, of which there are hundreds, each time.
            file = stack.enter_context(opened(path, Kind.STUDY))
            for part in parts:
                try:
                    file[part]
                except LookupError as error:
                    known = ", ".join(file.groups)
                    raise UserError(f"{path}: no '{part}' in this study, which has {known}") from error
            groups = {leaf.path: leaf for part in parts or file.groups for leaf in _leaves(file[part])}
            attrs = vars(file)
        cubes = {
            name: xr.open_dataset(xr.backends.NetCDF4DataStore(group)).assign_attrs(_labels(vars(group), config))
            for name, group in groups.items()
        }
        yield xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **cubes})


def _labels(attrs: Mapping[str, Any], config: StudyConfig | None) -> dict[str, str]:
    """Return what a cube's dataset and optimizer are called, where that is not as when it was made."""
    labels = {}
    if config is not None and attrs["dataset"] in config.datasets:
        labels["dataset_label"] = config.dataset_label(attrs["dataset"])
    if config is not None and attrs["optimizer"] in config.optimizers:
        labels["optimizer_label"] = config.spec(attrs["optimizer"]).label
    return labels


def _leaves(group: netCDF4.Group) -> Iterator[netCDF4.Group]:
    if not group.groups:
        yield group
    for child in group.groups.values():
        yield from _leaves(child)


def study_config(path: Path) -> StudyConfig:
    """Return the configuration that a study's file, or its folder ``results/<study>``, was made with.

    Raises:
        UserError: It is not such a file or folder.
    """
    if path.is_dir():
        return load_config(path / CONFIG_NAME)
    with opened(path, Kind.STUDY) as file:
        stored = yaml.safe_load(file.getncattr("config"))
        return parse_config(stored, str(path), may_lack_code=True, is_complete=True)


def load_results(path: str | Path) -> xr.DataTree:
    """Return the results of a study, in memory, as a tree of cubes: ``tree["epochs/digits/adamqlr"]``.

    Beside the suites, ``tree["sensitivity/<study>/<value>"]`` are cubes too, and
    ``tree["tuning/<suite>/<dataset>/<optimizer>"]`` holds the trials of a search.

    Args:
        path: The study's folder, ``results/<study>``, or its file ``study.nc`` by any name.

    Raises:
        UserError: The folder holds no ``study.nc``, or the file is none.
    """
    path = Path(path)
    with open_study(path / FILE_NAME if path.is_dir() else path) as study:
        return study.load()
