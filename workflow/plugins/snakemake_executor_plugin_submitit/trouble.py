"""What is wrong with a node when a job has failed on it: folders that are missing, full or read-only."""

import os
import re
import socket
import tempfile
from pathlib import Path

_MARK = "The node is in trouble: "
_NO_PROGRAM = re.compile(r"execve\(\): (\S+): (.*)")


def find_trouble() -> str | None:
    """Return one line that names what a job cannot write to on this node, if there is such a thing."""
    folders = {"TMPDIR": os.environ.get("TMPDIR"), "HOME": os.environ.get("HOME"), "the working directory": os.getcwd()}
    for name, folder in folders.items():
        try:
            if folder:
                with tempfile.TemporaryFile(dir=folder) as file:
                    file.write(bytes(2**16))
        except OSError as error:
            return f"{_MARK}{socket.gethostname()}: {name} ({folder}) cannot be written: {error.strerror}"
    return None


def read_trouble(log: Path) -> str:
    """Return what :func:`find_trouble` or Slurm has left in a job's log; nothing if they have not."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    if _MARK in text:
        return text.rpartition(_MARK)[2].splitlines()[0]
    if missing := _NO_PROGRAM.search(text):
        return (
            f"the node cannot run {missing.group(1)} ({missing.group(2)}): is the environment on a shared file system?"
        )
    return ""
