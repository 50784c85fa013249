"""Files that appear whole or not at all, and NetCDF files that know what they are."""

import errno
import os
import tempfile
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import netCDF4

from adamqlr.errors import UserError

if TYPE_CHECKING:
    import xarray as xr

KIND = "adamqlr_kind"
# Bytes; where as many can be written, room is not what stopped a file from being written.
_ROOM = 4 << 20
# Bytes; what the index of a compressed array's chunks takes.
_INDEX_BYTES = 2048


class Kind(StrEnum):
    """What a result file holds, as its attribute ``adamqlr_kind`` says."""

    RUNS = "runs"
    CUBE = "cube"
    TRIALS = "trials"
    STUDY = "study"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place once the block succeeds.

    Raises:
        UserError: The place cannot be made or written to, or is full.
        OSError: The block failed, and not for want of room.
        RuntimeError: Likewise.
    """
    temporary = _temporary_beside(path)
    try:
        yield temporary
        _match_umask(temporary)
        _reach_disk(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # The libraries of NetCDF and PyTorch have errors of their own for want of room.
        if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT) and _has_room(path.parent):
            raise
        raise UserError(f"{path}: no space is left there: free some, and run the same command again") from error
    finally:
        temporary.unlink(missing_ok=True)


def _reach_disk(path: Path) -> None:
    # A machine that crashes may keep the new name without the contents, in place of the old ones.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _has_room(folder: Path) -> bool:
    # What is free on a disk is not what a quota leaves of it: only writing tells.
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    return True


def check_place(path: Path) -> None:
    """Make a file's folder, before hours are spent on what is to be in the file.

    Raises:
        UserError: It cannot be made or written to.
    """
    _temporary_beside(path).unlink()


def _temporary_beside(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}: name another place, or mend this one") from error
    os.close(handle)
    return Path(name)


def _match_umask(path: Path) -> None:
    # mkstemp makes private files; results are shared on a cluster as any other file would be.
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_netcdf(dataset: "xr.Dataset", path: Path, kind: Kind) -> None:
    """Write a NetCDF-4 file, its larger arrays zlib-compressed, of the given ``kind``, whole or not at all."""
    with replacing(path) as temporary:
        dataset.assign_attrs({KIND: str(kind)}).to_netcdf(temporary, engine="netcdf4", encoding=_encoding_of(dataset))


def _encoding_of(dataset: "xr.Dataset") -> dict[Hashable, dict[str, Any]]:
    """Return the NetCDF encoding that compresses arrays of numbers, each metric in chunks of its own.

    Small ones are written as they are.
    """
    return {
        name: {
            "zlib": True,
            "complevel": 4,
            "chunksizes": tuple(1 if dim == "metric" else size for dim, size in variable.sizes.items()),
        }
        if variable.nbytes > _INDEX_BYTES
        else {}
        for name, variable in dataset.variables.items()
        if variable.dtype.kind in "fiub" and variable.ndim > 0
    }


def read_netcdf(path: Path, *kinds: Kind) -> "xr.Dataset":
    """Return what a file written by :func:`write_netcdf` holds, loaded into memory.

    Raises:
        UserError: The file is missing, is no NetCDF file, or is of none of ``kinds``.
    """
    # Most that write files write no arrays.
    import xarray as xr

    with opened(path, *kinds) as file:
        return xr.open_dataset(xr.backends.NetCDF4DataStore(file)).load()


def peek_kind(path: Path) -> Kind:
    """Return what kind of result a file holds, from its attributes alone.

    Raises:
        UserError: The file is missing, is no NetCDF file, or no result of this project.
    """
    with opened(path) as file:
        return Kind(file.getncattr(KIND))


@contextmanager
def opened(path: Path, *kinds: Kind) -> Iterator[netCDF4.Dataset]:
    """Open a result file.

    Args:
        path: The file.
        kinds: What it may be; any result if none is given.

    Raises:
        UserError: The file is missing, is no NetCDF file, or no such result.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        file = netCDF4.Dataset(path)
    except OSError as error:
        raise UserError(f"{path}: not a readable NetCDF file") from error
    with file:
        if KIND not in file.ncattrs():
            raise UserError(f"{path}: a NetCDF file, but no result of this project")
        found = str(file.getncattr(KIND))
        if kinds and found not in kinds:
            raise UserError(f"{path}: expected {' or '.join(kinds)}, found {found}")
        yield file
