"""What jobs add up to: counts, the expected time left, and the hours spent."""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from adamqlr.logs import device_kind
from adamqlr.status.expected import training_rules
from adamqlr.status.states import Folder, Seen, State
from adamqlr.study.config import StudyConfig

_EFFICIENCY = "logs/slurm/efficiency.tsv"
# What hours are of, by the kind of device.
_HOURS = {"cpu": "cpu", "cuda": "gpu"}
_GPUS = re.compile(r"(?:^|gpu:(?:[^:,]+:)?)(\d+)(?:,|$)")


@dataclass(frozen=True)
class Row:
    """One stage of one dataset.

    Attributes:
        rule: The workflow's rule.
        dataset: The dataset; None for a stage that is not of one.
        counts: Jobs in each state.
        median_seconds: Of its finished jobs; None if there are none.
        work_seconds: What is left to compute, as expected of that median; None where it is not known.
        hours: What finished jobs took.
        hours_of: ``gpu``, ``cpu``, or ``unknown``.
    """

    rule: str
    dataset: str | None
    counts: Counter[State]
    median_seconds: float | None
    work_seconds: float | None
    hours: float
    hours_of: str

    def seconds_left(self, jobs_at_a_time: int) -> float | None:
        """Return the expected time left at so many jobs at a time."""
        left = self.counts.total() - self.counts[State.DONE]
        return None if self.work_seconds is None else self.work_seconds / max(1, min(jobs_at_a_time, left))


@dataclass(frozen=True)
class Status:
    """How far a study is.

    Attributes:
        study: Its name.
        folder: Where it lies.
        time: When it was looked at, in seconds since the epoch.
        locked_since: When the run began that holds Snakemake's lock on it; None if none does.
        jobs: Its jobs.
        rows: Its stages, by dataset.
        hours: What was spent on ``gpu``, ``cpu`` and ``unknown`` devices, failed attempts on a cluster included.
    """

    study: str
    folder: Path
    time: float
    locked_since: float | None
    jobs: Sequence[Seen]
    rows: Sequence[Row]
    hours: Mapping[str, float]

    @property
    def counts(self) -> Counter[State]:
        """Jobs in each state."""
        return Counter(seen.state for seen in self.jobs)

    @property
    def queued(self) -> int:
        """How many of the waiting jobs are in a cluster's queue."""
        return sum(seen.is_queued for seen in self.jobs)

    @property
    def jobs_at_a_time(self) -> int:
        """What the time left is for: as many as run now, one if none does."""
        return max(1, self.counts[State.RUNNING])

    @property
    def seconds_left(self) -> float | None:
        """The expected time left of the stages of which it is known; None if there are none."""
        known = [row for row in self.rows if row.work_seconds is not None]
        if not known:
            return None
        longest = max(row.seconds_left(self.jobs_at_a_time) or 0.0 for row in known)
        return max(longest, sum(row.work_seconds or 0.0 for row in known) / self.jobs_at_a_time)

    @property
    def is_lower_bound(self) -> bool:
        """Whether nothing has finished yet of some stages, so that more is left than expected."""
        return any(row.work_seconds is None for row in self.rows)


def rows_of(jobs: Sequence[Seen], study: StudyConfig, folder: Folder) -> list[Row]:
    """Add up the jobs of each stage and dataset."""
    parts: dict[tuple[str, str | None], list[Seen]] = defaultdict(list)
    for seen in jobs:
        parts[seen.job.rule, seen.job.dataset].append(seen)
    return [_row(rule, dataset, part, study, folder) for (rule, dataset), part in parts.items()]


def hours_of(rows: Sequence[Row], folder: Folder) -> dict[str, float]:
    """Add up the hours of finished jobs, and of attempts that failed on a cluster."""
    hours = dict.fromkeys(("gpu", "cpu", "unknown"), 0.0)
    for row in rows:
        hours[row.hours_of] += row.hours
    for attempt in csv.DictReader(folder.read(_EFFICIENCY).splitlines(), delimiter="\t"):
        if attempt["ending"] != "succeeded" and attempt["minutes_used"]:
            gpus = _gpus(attempt["gpus"])
            hours["gpu" if gpus else "cpu"] += float(attempt["minutes_used"]) / 60 * max(1, gpus)
    return hours


def _row(rule: str, dataset: str | None, jobs: Sequence[Seen], study: StudyConfig, folder: Folder) -> Row:
    seconds = [seen.seconds for seen in jobs if seen.seconds is not None]
    middle = median(seconds) if seconds else None
    left = [seen for seen in jobs if seen.state is not State.DONE]
    shares = sum(1 - (seen.fraction or 0) if seen.state is State.RUNNING else 1 for seen in left)
    work = 0.0 if not left else None if middle is None else middle * shares
    counts = Counter(seen.state for seen in jobs)
    return Row(rule, dataset, counts, middle, work, sum(seconds) / 3600, _device_hours(rule, jobs, study, folder))


def _device_hours(rule: str, jobs: Sequence[Seen], study: StudyConfig, folder: Folder) -> str:
    """Return what the hours of a stage's jobs are of: as configured, else as the first job that says so has it."""
    if rule not in training_rules(study):
        return "cpu"
    if study.device in _HOURS:
        return _HOURS[study.device]
    kinds = (device_kind(folder.read(seen.job.log)) for seen in jobs if seen.seconds is not None)
    return next((_HOURS[kind] for kind in kinds if kind in _HOURS), "unknown")


def _gpus(asked: str) -> int:
    """Return how many GPUs a job asked for: a number, or as in ``gpu:a100:2``."""
    found = _GPUS.search(asked)
    return int(found[1]) if found else 0
