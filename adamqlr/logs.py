"""How the package's messages look in a terminal and in a job's log, and how a log is read."""

import logging
import re

_PROGRESS = re.compile(r": +(\d+) %, ")
_DEVICE = re.compile(r" computes on (\w+): ")
# The latter two are a job's words when it was stopped by Ctrl-C while it still imported what it needs.
_STOPPED = ("adamqlr: stopped by ", "Aborted!", "KeyboardInterrupt")
_ERROR = re.compile(r"(adamqlr: error: |Error: |[\w.]*(Error|Exception)(: |$))")


def configure_logging() -> None:
    """Send the package's messages to standard error, with the time of day."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("adamqlr").setLevel(logging.INFO)


def progress_line(label: str, fraction: float, words: str) -> str:
    """Say how far a job is."""
    return f"{label}: {100 * fraction:3.0f} %, {words}"


def device_line(what: object, kind: str, name: str) -> str:
    """Say where a job computes: on which kind of device, ``cpu`` or ``cuda``, and what it is called."""
    return f"{what} computes on {kind}: {name}"


def last_fraction(log: str) -> float | None:
    """Return how far a job was when it last said so."""
    found = _PROGRESS.findall(log)
    return int(found[-1]) / 100 if found else None


def device_kind(log: str) -> str | None:
    """Return the kind of device that a job computed on, if it says so."""
    found = _DEVICE.search(log)
    return found[1] if found else None


def final_error(log: str) -> str | None:
    """Return a log's last line if it is an error's."""
    line = _last_line(log)
    return line if _ERROR.match(line) else None


def was_stopped(log: str) -> bool:
    """Tell whether a job's last word is that it was asked to stop."""
    return _last_line(log).startswith(_STOPPED)


def _last_line(log: str) -> str:
    return log.rstrip().rpartition("\n")[2]
