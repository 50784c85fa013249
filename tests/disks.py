"""File systems of this machine that have no room left: a small disk, and a large one with a small quota."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# Bytes; Btrfs cannot be made on less.
_LARGE = 128 << 20


@dataclass(frozen=True)
class Disk:
    """A file system on which a file of some bytes has no place.

    Args:
        path: Where it is mounted.
        size: How many bytes there is room for.
        said: What the system says when there is none left.
    """

    path: Path
    size: int
    said: str

    def fill(self, left: int = 0) -> None:
        """Take all room but for some bytes."""
        with (self.path / "ballast").open("wb", buffering=0) as file:
            file.write(bytes(self.size - left))

    def free(self) -> None:
        """Give back what was taken, at once."""
        (self.path / "ballast").unlink(missing_ok=True)
        subprocess.run(["sync", "--file-system", self.path], check=True)


Limit = Callable[[Path, int], AbstractContextManager[Disk]]
"""What makes a disk at a path on which some bytes may be written."""


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Disk]:
    """A disk of some bytes."""
    with _mounted(path, "--types=tmpfs", f"--options=size={size}", "none"):
        yield Disk(path, size, "No space left on device")


@contextmanager
def small_quota(path: Path, size: int) -> Iterator[Disk]:
    """A disk with room, of which some bytes may be used."""
    if not shutil.which("mkfs.btrfs"):
        pytest.skip("no file system with quotas can be made here: install btrfs-progs")
    image = path.with_name(f"{path.name}.image")
    with image.open("wb") as file:
        file.truncate(_LARGE)
    subprocess.run(["mkfs.btrfs", "--quiet", image], check=True, capture_output=True)
    with _mounted(path, "--options=loop", str(image)):
        subprocess.run(["btrfs", "quota", "enable", path], check=True)
        subprocess.run(["btrfs", "qgroup", "limit", str(size), path], check=True)
        yield Disk(path, size, "Disk quota exceeded")


@contextmanager
def _mounted(path: Path, *what: str) -> Iterator[None]:
    path.mkdir()
    mount = subprocess.run(["mount", *what, str(path)], capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"no such file system can be mounted here: {mount.stderr.strip()}")
    try:
        yield
    finally:
        # Lazily, as a process that has failed may keep a file open for a while; a loop device goes with its mount.
        subprocess.run(["umount", "--lazy", str(path)], check=True)
