"""What Snakemake leaves in its own folder, ``.snakemake``, while it runs and afterwards."""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from adamqlr.study.names import CONFIG_NAME

# How Snakemake's log begins what it says of a job that starts, is submitted, or has failed.
_HEADING = re.compile(r"(?:\w*rule \w+|(?P<error>Error in rule \w+)):$")
_OUTPUT = "    output: "


class Mark(NamedTuple):
    """Snakemake's marker of an output whose job was started or submitted and has not ended.

    Attributes:
        time: When, in seconds since the epoch.
        cluster_job: The cluster's name for the job while it waits there; None once it has started.
    """

    time: float
    cluster_job: str | None


@dataclass(frozen=True)
class Traces:
    """What Snakemake says of a study's outputs, by their paths in the study's folder.

    Attributes:
        marks: Those whose jobs were started or submitted.
        failed: Those of whose jobs the last that it said is an error.
        locked_since: When a run locked the study, in seconds since the epoch; None if none holds the lock. The lock of
            a run that was killed stays.
    """

    marks: dict[str, Mark]
    failed: frozenset[str]
    locked_since: float | None


def read_traces(folder: Path) -> Traces:
    """Return what Snakemake says of the study in ``folder``, which is ``results/<study>`` where it was started."""
    place = folder.resolve()
    snakemake, prefix = place.parent.parent / ".snakemake", f"{place.parent.name}/{place.name}/"
    # The lock comes first: it is there before the first marker, and goes after the last.
    locked_since = _locked_since(snakemake / "locks", prefix)
    marks = dict(_marks(snakemake / "incomplete", prefix))
    failed = _failed(snakemake / "log", prefix, since=(folder / CONFIG_NAME).stat().st_mtime)
    return Traces(marks, failed, locked_since)


def _marks(folder: Path, prefix: str) -> list[tuple[str, Mark]]:
    """Return all markers: files named by the output's path in base 64, in folders ``@…`` where that is long."""
    marks = []
    for file in folder.rglob("*"):
        name = "".join(part.removeprefix("@") for part in file.relative_to(folder).parts)
        try:
            output = base64.urlsafe_b64decode(name).decode()
            if output.startswith(prefix):
                cluster_job = json.loads(file.read_text(encoding="utf-8"))["external_jobid"]
                marks.append((output.removeprefix(prefix), Mark(file.stat().st_mtime, cluster_job)))
        except (binascii.Error, FileNotFoundError, IsADirectoryError, ValueError, KeyError):
            # The job has just ended, the marker is just being written, or the file is no marker.
            continue
    return marks


def _failed(folder: Path, prefix: str, since: float) -> frozenset[str]:
    """Return outputs whose jobs have failed in the last run: its log was written to after the configuration was."""
    failed: dict[str, bool] = {}
    for log in sorted(folder.glob("*.snakemake.log")):
        if log.stat().st_mtime < since:
            continue
        is_error: bool | None = None
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if heading := _HEADING.match(line):
                is_error = heading["error"] is not None
            elif is_error is not None and line.startswith(_OUTPUT):
                outputs = line.removeprefix(_OUTPUT).split(", ")
                failed |= {output.removeprefix(prefix): is_error for output in outputs if output.startswith(prefix)}
                is_error = None
    return frozenset(output for output, is_error in failed.items() if is_error)


def _locked_since(folder: Path, prefix: str) -> float | None:
    for lock in folder.glob("*.output.lock"):
        try:
            if any(line.startswith(prefix) for line in lock.read_text(encoding="utf-8").splitlines()):
                return lock.stat().st_mtime
        except FileNotFoundError:
            # The run has just ended.
            continue
    return None
