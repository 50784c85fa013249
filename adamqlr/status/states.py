"""What has become of each job, told from its files and from what Snakemake says of it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from adamqlr.logs import final_error, last_fraction, was_stopped
from adamqlr.status.expected import Job
from adamqlr.status.traces import Mark, Traces

# A job that computes says so every ten seconds, and its checkpoints are a minute apart unless configured otherwise.
SILENCE_SECONDS = 180.0
_TAIL_BYTES = 4096


class State(StrEnum):
    """What has become of a job."""

    DONE = "done"
    RUNNING = "running"
    WAITING = "waiting"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Seen:
    """One job as its files show it.

    Attributes:
        job: The job.
        state: What has become of it.
        seconds: What it took, once it is done.
        fraction: How far it was when it last said so.
        silent_seconds: How long ago it last wrote anything, once it is started.
        is_queued: Whether it waits in a cluster's queue.
        why: The error of a job that has failed.
    """

    job: Job
    state: State
    seconds: float | None = None
    fraction: float | None = None
    silent_seconds: float | None = None
    is_queued: bool = False
    why: str = ""


class Folder:
    """A study's folder as it was when it was looked at.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        walk = os.walk(path, onerror=_raise_if_forbidden)
        self._names = {os.path.relpath(place, path): set(names) for place, _, names in walk}

    def holds(self, file: str) -> bool:
        """Tell whether a file was there."""
        place, name = _split(file)
        return name in self._names.get(place, ())

    def read(self, file: str, last_bytes: int | None = None) -> str:
        """Return a file's text, or the end of it; nothing if it is not there."""
        if not self.holds(file):
            return ""
        try:
            with (self._path / file).open("rb") as opened:
                if last_bytes is not None:
                    opened.seek(max(0, opened.seek(0, os.SEEK_END) - last_bytes))
                return opened.read().decode(errors="replace")
        except OSError as error:
            # Else it has gone, or was replaced by another node, since the folder was looked at.
            _raise_if_forbidden(error)
            return ""

    def last_written(self, job: Job) -> float:
        """Return when a job's log, checkpoints or unfinished outputs were last written; 0 if there are none."""
        times = [self.time_of(job.log)]
        for output in job.outputs:
            place, output_name = _split(output)
            hidden = [name for name in self._names.get(place, ()) if name.startswith(f".{output_name}.")]
            times += [self.time_of(os.path.join(place, name)) for name in hidden]
        return max(times)

    def time_of(self, file: str) -> float:
        """Return when a file was last written, in seconds since the epoch; 0 if it is not there."""
        try:
            return (self._path / file).stat().st_mtime
        except FileNotFoundError:
            return 0.0


def _raise_if_forbidden(error: OSError) -> None:
    if isinstance(error, PermissionError):
        raise error


def _split(file: str) -> tuple[str, str]:
    place, name = os.path.split(file)
    return place or os.curdir, name


def look(jobs: Sequence[Job], folder: Folder, traces: Traces, now: float) -> list[Seen]:
    """Return what has become of each job, in their order.

    Args:
        jobs: The study's jobs.
        folder: Its folder, looked at after ``traces`` were read, so that a job that ends in between still runs.
        traces: What Snakemake says.
        now: Seconds since the epoch.
    """
    return [_look_at(job, folder, traces, now) for job in jobs]


def _look_at(job: Job, folder: Folder, traces: Traces, now: float) -> Seen:
    marks = [traces.marks[output] for output in job.outputs if output in traces.marks]
    if marks:
        return _started(job, folder, traces, max(marks, key=lambda mark: mark.time), now)
    if all(folder.holds(output) for output in job.outputs):
        return Seen(job, State.DONE, seconds=_seconds(folder.read(job.benchmark)))
    log = folder.read(job.log, _TAIL_BYTES)
    if final_error(log) or not traces.failed.isdisjoint(job.outputs):
        return _failed(job, log)
    return Seen(job, State.WAITING, fraction=last_fraction(log))


def _started(job: Job, folder: Folder, traces: Traces, mark: Mark, now: float) -> Seen:
    """Tell what has become of a job that Snakemake has started or submitted, and whose end it has not noted."""
    is_locked, written = traces.locked_since is not None, folder.last_written(job)
    if mark.cluster_job is not None and written <= mark.time:
        return Seen(job, State.WAITING, is_queued=is_locked)
    log = folder.read(job.log, _TAIL_BYTES) if folder.time_of(job.log) >= mark.time else ""
    if final_error(log):
        return _failed(job, log)
    silent, fraction = max(0.0, now - max(mark.time, written)), last_fraction(log)
    is_silent = silent > SILENCE_SECONDS
    if was_stopped(log) or (is_silent and not is_locked):
        return Seen(job, State.WAITING, fraction=fraction)
    state = State.RUNNING if is_locked and not is_silent else State.UNKNOWN
    return Seen(job, state, fraction=fraction, silent_seconds=silent)


def _failed(job: Job, log: str) -> Seen:
    return Seen(job, State.FAILED, fraction=last_fraction(log), why=final_error(log) or "its log names no error")


def _seconds(benchmark: str) -> float | None:
    """Return the first column of a benchmark's only row."""
    try:
        return float(benchmark.splitlines()[1].split("\t")[0])
    except (IndexError, ValueError):
        return None
