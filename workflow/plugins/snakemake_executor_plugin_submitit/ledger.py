"""Which jobs are out there: a head process that is started again takes them up instead of submitting them twice."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One submitted job.

    Attributes:
        key: :func:`job_key` of the Snakemake job.
        job_id: The cluster's name for it.
        folder: Where submitit keeps its files.
        cluster: The kind of cluster it went to.
        outputs: The files that it makes.
    """

    key: str
    job_id: str
    folder: str
    cluster: str
    outputs: Sequence[str] = ()


class Ledger:
    """A file of lines, appended when jobs are submitted and when they have ended.

    Args:
        path: The file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Entry] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._read()
            self._rewrite()

    def entries(self) -> list[Entry]:
        """Return all jobs whose end nobody has seen."""
        return list(self._entries.values())

    def find(self, key: str) -> Entry | None:
        """Return the job that was submitted under ``key`` and whose end nobody has seen."""
        return self._entries.get(key)

    def add(self, entries: list[Entry]) -> None:
        """Enter jobs, all with one write."""
        self._entries.update({entry.key: entry for entry in entries})
        self._append([asdict(entry) for entry in entries])

    def remove(self, keys: list[str]) -> None:
        """Strike out jobs that have ended."""
        for key in keys:
            self._entries.pop(key, None)
        # On a full disk, the next head process finds out by itself that they have ended.
        with contextlib.suppress(OSError):
            self._append([{"key": key} for key in keys])

    def remove_file_if_empty(self) -> None:
        """Remove the file when nothing is out there."""
        if not self._entries:
            self._path.unlink(missing_ok=True)

    def _append(self, records: list[dict[str, Any]]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> None:
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                # The head process was killed while it wrote the last line.
                continue
            if "job_id" in record:
                self._entries[record["key"]] = Entry(**record)
            else:
                self._entries.pop(record["key"], None)

    def _rewrite(self) -> None:
        temporary = self._path.with_suffix(".new")
        lines = (json.dumps(asdict(entry)) + "\n" for entry in self._entries.values())
        temporary.write_text("".join(lines), encoding="utf-8")
        temporary.replace(self._path)


def job_key(job: Any) -> str:
    """Return a hash of what a Snakemake job makes, how and of what, the same in every run of the head process."""
    made_within = set(outputs_of(job))
    described = sorted(
        json.dumps(
            [
                member.rule.name,
                sorted(map(str, member.output)),
                [str(value) for value in member.params],
                # Whether these have changed does not matter where they are marked so, nor to Snakemake.
                sorted(_version(path) for path in member.input if not path.is_ancient and path not in made_within),
            ]
        )
        for member in members_of(job)
    )
    return hashlib.sha256("\n".join(described).encode()).hexdigest()


def _version(path: str) -> tuple[str, int, int]:
    """Return what tells a file from an earlier or a later one of its name."""
    try:
        found = os.stat(path)
    except OSError:
        return path, 0, 0
    return path, found.st_mtime_ns, found.st_size


def outputs_of(job: Any) -> list[str]:
    """Return the files that a Snakemake job makes."""
    return [str(path) for member in members_of(job) for path in member.output]


def members_of(job: Any) -> Iterable[Any]:
    """Return the Snakemake jobs that run as one: those of a group, or the one itself."""
    return job.jobs if job.is_group() else [job]
