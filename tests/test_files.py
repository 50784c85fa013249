"""Files that appear whole or not at all."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from adamqlr.errors import UserError
from adamqlr.files import Kind, read_netcdf, replacing, write_netcdf, write_text
from adamqlr.jobs.checkpoint import Checkpoint


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


@pytest.mark.parametrize("place", ["/proc/nope/a.txt", "/dev/null/a.txt"])
def test_a_place_that_cannot_be_written_is_named(place: str) -> None:
    with pytest.raises(UserError, match=f"{place}: cannot be written: .*: name another place"):
        write_text(Path(place), "text")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with 256 kB on it, less a file of most of them."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    (folder / "other").write_bytes(bytes(128 << 10))
    yield folder
    # Lazily, as a library that has failed keeps its file open for a while.
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_named_and_nothing_half_written(full_disk: Path) -> None:
    rows = np.random.default_rng(0).random(1 << 16)
    results = xr.Dataset({"x": ("t", rows)})

    def save_checkpoint(path: Path) -> None:
        Checkpoint(path.with_suffix(".nc"), "identity").save({"rows": torch.from_numpy(rows)})

    writers: dict[str, Callable[[Path], None]] = {
        "a.txt": lambda path: write_text(path, "x" * rows.nbytes),
        "a.nc": lambda path: write_netcdf(results, path, Kind.RUNS),
        "a.checkpoint": save_checkpoint,
    }
    for name, write in writers.items():
        with pytest.raises(UserError, match="no space is left there: free some, and run the same command again"):
            write(full_disk / name)
        assert [path.name for path in full_disk.iterdir()] == ["other"]
    (full_disk / "other").unlink()
    write_text(full_disk / "a.txt", "x")


def _umask() -> int:
    import os

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
