"""Files that appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from adamqlr.errors import UserError
from adamqlr.files import Kind, read_netcdf, replacing, write_netcdf, write_text
from adamqlr.jobs.checkpoint import Checkpoint
from tests.disks import Limit, small_disk, small_quota


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


def test_contents_reach_the_disk_before_their_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, calls, fsync, replace = tmp_path / "file.txt", list[str](), os.fsync, os.replace

    def note_fsync(handle: int) -> None:
        calls.append(f"fsync {Path(f'/proc/self/fd/{handle}').readlink().read_text()}")
        fsync(handle)

    def note_replace(source: Path, target: Path) -> None:
        calls.append(f"replace {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_text(path, "text")
    assert calls == ["fsync text", "replace file.txt"]


@pytest.mark.parametrize("place", ["/proc/nope/a.txt", "/dev/null/a.txt"])
def test_a_place_that_cannot_be_written_is_named(place: str) -> None:
    with pytest.raises(UserError, match=f"{place}: cannot be written: .*: name another place"):
        write_text(Path(place), "text")


def _save_checkpoint(path: Path, rows: np.ndarray) -> None:
    Checkpoint(path, "identity").save({"rows": torch.from_numpy(rows)})


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "text": lambda path, rows: write_text(path, "x" * rows.nbytes),
    "netcdf": lambda path, rows: write_netcdf(xr.Dataset({"x": ("t", rows)}), path, Kind.RUNS),
    "checkpoint": _save_checkpoint,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("limit", [small_disk, small_quota])
def test_a_full_disk_is_named_and_nothing_half_written(limit: Limit, writer: str, tmp_path: Path) -> None:
    """Also where a quota leaves no room on a disk that has some."""
    rows = np.random.default_rng(0).random(1 << 16)
    with limit(tmp_path / "disk", 4 << 20) as disk:
        disk.fill(left=128 << 10)
        before = list(disk.path.iterdir())
        with pytest.raises(UserError, match="no space is left there: free some, and run the same command again"):
            WRITERS[writer](disk.path / "file", rows)
        assert list(disk.path.iterdir()) == before
        disk.free()
        WRITERS[writer](disk.path / "file", rows)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_files_know_their_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    dataset = xr.Dataset({"x": ("t", [1.0, 2.0])})
    write_netcdf(dataset, path, Kind.RUNS)
    assert read_netcdf(path, Kind.CUBE, Kind.RUNS)["x"].values.tolist() == [1, 2]
    with pytest.raises(UserError, match=r"a\.nc: expected cube, found runs"):
        read_netcdf(path, Kind.CUBE)
    dataset.to_netcdf(path)
    with pytest.raises(UserError, match="no result of this project"):
        read_netcdf(path, Kind.RUNS)
    path.write_bytes(b"CDF nothing of the kind")
    with pytest.raises(UserError, match="not a readable NetCDF file"):
        read_netcdf(path, Kind.RUNS)
    with pytest.raises(UserError, match="no such file"):
        read_netcdf(tmp_path / "none.nc", Kind.RUNS)
