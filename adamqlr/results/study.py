"""The study's file: every cube in one tree, /suite/dataset/optimizer, beside sensitivity studies and trials."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import netCDF4
import xarray as xr
import yaml

from adamqlr.config import TUNING, StudyConfig, parse_config
from adamqlr.errors import UserError
from adamqlr.files import KIND as KIND_ATTRIBUTE
from adamqlr.files import encoding_of, peek_kind, read_netcdf, replacing
from adamqlr.results.cube import KIND as CUBE
from adamqlr.results.provenance import group_of
from adamqlr.tuning.trials import KIND as TRIALS

KIND = "study"
FILE_NAME = "study.nc"


def write_study(parts: Sequence[Path], output: Path) -> None:
    """Join cubes and trials into one NetCDF file with a group for each; one at a time is in memory.

    Raises:
        UserError: A file is neither, belongs to another study, or is of a group that another file has too.
    """
    study: str | None = None
    groups: set[str] = set()
    with replacing(output) as temporary:
        for path in parts:
            part = read_netcdf(path, CUBE, TRIALS)
            group = group_of(part.attrs)
            if part.attrs[KIND_ATTRIBUTE] == TRIALS:
                group = f"{TUNING}/{group}"
            if group in groups:
                raise UserError(f"{path}: a second file of {group}")
            if study is not None and part.attrs["study"] != study:
                raise UserError(f"{path}: belongs to the study '{part.attrs['study']}', not '{study}'")
            if study is None:
                study = part.attrs["study"]
                root = xr.Dataset(attrs={KIND_ATTRIBUTE: KIND, "study": study, "config": part.attrs["config"]})
                root.to_netcdf(temporary, engine="netcdf4")
            groups.add(group)
            part.to_netcdf(temporary, engine="netcdf4", mode="a", group=group, encoding=encoding_of(part))


@contextmanager
def open_study(path: Path, *parts: str) -> Iterator[xr.DataTree]:
    """Open a study's file without loading it; what is used is read when it is used.

    Args:
        path: The file.
        parts: Suites and other top-level groups to open; all of them if none is given.

    Raises:
        UserError: It is not such a file, or has no such part.
    """
    _check_kind(path)
    with netCDF4.Dataset(path) as file:
        attrs = {name: file.getncattr(name) for name in file.ncattrs()}
        present = list(file.groups)
    for part in parts:
        if part not in present:
            raise UserError(f"{path}: no '{part}' in this study, which has {', '.join(present)}")
    opened = {part: xr.open_datatree(path, engine="netcdf4", group=part) for part in parts or present}
    try:
        yield xr.DataTree(xr.Dataset(attrs=attrs), children=opened)
    finally:
        for tree in opened.values():
            tree.close()


def load_study(path: Path) -> xr.DataTree:
    """Load a study's file into memory.

    Raises:
        UserError: It is not one.
    """
    with open_study(path) as study:
        return study.load()


def study_config(path: Path) -> StudyConfig:
    """Return the configuration that a study's file was made with.

    Raises:
        UserError: It is not such a file.
    """
    _check_kind(path)
    with netCDF4.Dataset(path) as file:
        return parse_config(yaml.safe_load(file.getncattr("config")), str(path))


def load_results(folder: str | Path) -> xr.DataTree:
    """Load the results of a study, ``results/<study>``, as a tree of cubes: ``tree["epochs/digits/adamqlr"]``.

    Beside the suites, ``tree["sensitivity/<study>/<value>"]`` are cubes too, and
    ``tree["tuning/<suite>/<dataset>/<optimizer>"]`` holds the trials of a search.

    Raises:
        UserError: The folder holds no ``study.nc``.
    """
    return load_study(Path(folder) / FILE_NAME)


def _check_kind(path: Path) -> None:
    kind = peek_kind(path)
    if kind != KIND:
        raise UserError(f"{path}: expected {KIND}, found {kind}")
