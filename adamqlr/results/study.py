"""The study's file: every cube in one tree, /suite/dataset/optimizer."""

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from adamqlr.errors import UserError
from adamqlr.files import KIND as KIND_ATTRIBUTE
from adamqlr.files import compression, peek_kind, replacing
from adamqlr.results.cube import read_cube

KIND = "study"
FILE_NAME = "study.nc"


def write_study(cubes: Sequence[Path], output: Path) -> None:
    """Join cubes into one NetCDF file with a group for each.

    Raises:
        UserError: A file is no cube, belongs to another study, or is of a pair that another file has too.
    """
    nodes: dict[str, xr.Dataset] = {}
    study: str | None = None
    for path in cubes:
        cube = read_cube(path)
        group = "/".join(cube.attrs[part] for part in ("suite", "dataset", "optimizer"))
        if group in nodes:
            raise UserError(f"{path}: a second cube of {group}")
        if study is not None and cube.attrs["study"] != study:
            raise UserError(f"{path}: belongs to the study '{cube.attrs['study']}', not '{study}'")
        study = cube.attrs["study"]
        nodes[group] = cube
    root = xr.Dataset(attrs={KIND_ATTRIBUTE: KIND, "study": study or ""})
    tree = xr.DataTree.from_dict({"/": root, **nodes})
    encoding = {f"/{group}": compression(cube) for group, cube in nodes.items()}
    with replacing(output) as temporary:
        tree.to_netcdf(temporary, engine="netcdf4", encoding=encoding)


def load_study(path: Path) -> xr.DataTree:
    """Load a study's file into memory.

    Raises:
        UserError: It is not one.
    """
    kind = peek_kind(path)
    if kind != KIND:
        raise UserError(f"{path}: expected {KIND}, found {kind}")
    with xr.open_datatree(path, engine="netcdf4") as tree:
        return tree.load()


def load_results(folder: str | Path) -> xr.DataTree:
    """Load the results of a study, ``results/<study>``, as a tree of cubes: ``tree["epochs/digits/adamqlr"]``.

    Raises:
        UserError: The folder holds no ``study.nc``.
    """
    return load_study(Path(folder) / FILE_NAME)
