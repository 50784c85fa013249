"""What a failed job's log tells of its node: folders that are missing, full or read-only, and memory that ran out."""

import os
import re
import socket
import tempfile
from pathlib import Path

_MARK = "The node is in trouble: "
# Slurm says so of a step, as commands are, and leaves the job itself as FAILED: by cgroups, or by what it measured.
_NO_MEMORY = re.compile(
    r"^(?:slurmstepd|srun)\S*: error: .*(?:oom.kill event|exceeded (?:job |step )?memory limit|: out of memory)",
    re.IGNORECASE | re.MULTILINE,
)
_NO_STEP = re.compile(r"^srun: error: Unable to create step for job", re.MULTILINE)
_NO_PROGRAM = re.compile(r"execve\(\): (\S+): (.*)")
_NO_ROOM = re.compile(r"^.*(?:No space left on device|Disk quota exceeded|Read-only file system).*$", re.MULTILINE)


def find_trouble() -> str | None:
    """Return one line that names what a job cannot write to on this node, if there is such a thing."""
    folders = {"TMPDIR": os.environ.get("TMPDIR"), "HOME": os.environ.get("HOME"), "the working directory": os.getcwd()}
    for name, folder in folders.items():
        if folder and (why := _try_to_write(folder)):
            return f"{_MARK}{socket.gethostname()}: {name} ({folder}) {why}"
    return None


def read_trouble(log: Path) -> str:
    """Return what :func:`find_trouble`, Slurm or a program without room has left in a job's log, or nothing.

    A log that itself had no room for more tells nothing: what its folder lacks is found here.
    """
    text = _read(log)
    if _MARK in text:
        return text.rpartition(_MARK)[2].splitlines()[0]
    if missing := _NO_PROGRAM.search(text):
        return (
            f"the node cannot run {missing.group(1)} ({missing.group(2)}): is the environment on a shared file system?"
        )
    rooms: list[str] = _NO_ROOM.findall(text)
    if rooms:
        return rooms[-1].strip()
    return f"{log.parent} {why}" if (why := _try_to_write(log.parent)) else ""


def ran_out_of_memory(log: Path) -> bool:
    """Tell whether Slurm, or the kernel on its behalf, has killed one of a job's processes for want of memory."""
    return _NO_MEMORY.search(_read(log)) is not None


def had_no_step(log: Path) -> bool:
    """Tell whether Slurm has given a job its node, but not what it asked for there."""
    return _NO_STEP.search(_read(log)) is not None


def _try_to_write(folder: Path | str) -> str | None:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**16))
    except OSError as error:
        return f"cannot be written: {error.strerror}"
    return None


def _read(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
