"""Files that appear whole or not at all."""

from pathlib import Path

import pytest
import xarray as xr

from adamqlr.errors import UserError
from adamqlr.files import read_netcdf, replacing, write_netcdf, write_text


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "old")

    def fail_halfway() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_files_know_their_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    dataset = xr.Dataset({"x": ("t", [1.0, 2.0])})
    write_netcdf(dataset, path, "runs")
    assert read_netcdf(path, "cube", "runs")["x"].values.tolist() == [1, 2]
    with pytest.raises(UserError, match=r"a\.nc: expected cube, found runs"):
        read_netcdf(path, "cube")
    dataset.to_netcdf(path)
    with pytest.raises(UserError, match="no result of this project"):
        read_netcdf(path, "runs")
    path.write_bytes(b"CDF nothing of the kind")
    with pytest.raises(UserError, match="not a readable NetCDF file"):
        read_netcdf(path, "runs")
    with pytest.raises(UserError, match="no such file"):
        read_netcdf(tmp_path / "none.nc", "runs")
