"""Joining cubes and trials into the study's file: a group for each, /suite/dataset/optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import netCDF4

from adamqlr.errors import UserError
from adamqlr.files import KIND, Kind, opened, replacing
from adamqlr.results.attributes import config_text, group_of
from adamqlr.study.names import TUNING

if TYPE_CHECKING:
    from adamqlr.study.config import StudyConfig


def write_study(parts: Sequence[Path], output: Path, config: StudyConfig | None = None) -> None:
    """Join cubes and trials into one NetCDF file with a group for each; one variable at a time is in memory.

    Args:
        parts: The files.
        output: The study's file.
        config: The configuration in force, which the file keeps; that of the first part if not given.

    Raises:
        UserError: A file is neither, belongs to another study, or is of a group that another file has too.
    """
    groups: dict[str, Path] = {}
    with replacing(output) as temporary, netCDF4.Dataset(temporary, "w") as file:
        # All is defined before anything is written: in between, the library goes through all groups there are.
        for path in parts:
            with opened(path, Kind.CUBE, Kind.TRIALS) as part:
                attrs = vars(part)
                group = f"{TUNING}/{group_of(attrs)}" if attrs[KIND] == Kind.TRIALS else group_of(attrs)
                if group in groups:
                    raise UserError(f"{path}: a second file of {group}")
                if not groups:
                    kept = attrs["config"] if config is None else config_text(config)
                    file.setncatts({KIND: str(Kind.STUDY), "study": attrs["study"], "config": kept})
                if attrs["study"] != file.study:
                    raise UserError(f"{path}: belongs to the study '{attrs['study']}', not '{file.study}'")
                groups[group] = path
                _define(part, file.createGroup(group))
        for group, path in groups.items():
            with opened(path) as part:
                _fill(part, file[group])


def _define(part: netCDF4.Dataset, group: netCDF4.Group) -> None:
    """Give a group the attributes, dimensions and variables of a file."""
    group.setncatts(vars(part))
    for name, dimension in part.dimensions.items():
        group.createDimension(name, len(dimension))
    for name, variable in part.variables.items():
        attributes, filters, chunks = vars(variable), variable.filters() or {}, variable.chunking()
        options: dict[str, Any] = {name: filters[name] for name in ("zlib", "complevel") if name in filters}
        options["chunksizes"] = None if chunks == "contiguous" else chunks
        options["fill_value"] = attributes.pop("_FillValue", None)
        group.createVariable(name, variable.dtype, variable.dimensions, **options).setncatts(attributes)


def _fill(part: netCDF4.Dataset, group: netCDF4.Group) -> None:
    """Write a file's values to a group that is defined like it."""
    for dataset in (part, group):
        dataset.set_auto_maskandscale(False)
    for name, variable in part.variables.items():
        group[name][...] = variable[...]
