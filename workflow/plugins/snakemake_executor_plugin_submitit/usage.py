"""What jobs took of what they asked for: measured on the node, collected in efficiency.tsv."""

import math
import resource
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from snakemake_executor_plugin_submitit.resources import memory_mb

_SAMPLE_SECONDS = 2.0
_MARGIN = 1.25
_COLUMNS = ("rule", "job", "node", "ending", "minutes_asked", "minutes_used", "mb_asked", "mb_used", "cpus", "gpus")


class ExitCode(int):
    """A command's exit code, together with what it took.

    Attributes:
        minutes: How long it ran.
        mb: How much memory its processes held at most.
    """

    minutes: float
    mb: int


class Meter:
    """Measures a command while it runs.

    Args:
        pid: Its first process.
        before: What it took before it was started again, if it was.
    """

    def __init__(self, pid: int, before: ExitCode | None = None) -> None:
        self._process = psutil.Process(pid)
        self._started = time.monotonic()
        self._next = self._started
        self._minutes, self._mb = (before.minutes, float(before.mb)) if before is not None else (0.0, 0.0)

    def look(self) -> None:
        """Look at the memory of its processes, every few seconds."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SAMPLE_SECONDS
        try:
            processes = [self._process, *self._process.children(recursive=True)]
            self._mb = max(self._mb, sum(process.memory_info().rss for process in processes) / 2**20)
        except psutil.Error:
            # A process that has just ended; the next look is soon.
            return

    def exit_code(self, code: int) -> ExitCode:
        """Return what the command ended with, and took, from when it was first started."""
        measured = ExitCode(code)
        measured.minutes = self._minutes + (time.monotonic() - self._started) / 60
        # What a short process held between two looks is known once it has ended, of the largest.
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
        measured.mb = math.ceil(max(self._mb, largest))
        return measured


class Efficiency:
    """Collects what jobs took.

    Args:
        path: The table, to which rows are added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._most: dict[str, Counter[str]] = {}

    def note(self, rule: str, job: str, node: str, ending: str, asked: Mapping[str, Any], code: int | None) -> None:
        """Add a job.

        Args:
            rule: Its rule.
            job: The cluster's name for it.
            node: Where it ran.
            ending: How it ended.
            asked: Its parameters.
            code: Its exit code; what it took is part of it.
        """
        minutes, mb = getattr(code, "minutes", None), getattr(code, "mb", None)
        used_minutes, used_mb = "" if minutes is None else f"{minutes:.2f}", "" if mb is None else mb
        asked_mb = memory_mb(asked) or ""
        gpus = asked.get("gpus_per_node") or asked.get("slurm_gres") or 0
        row = (rule, job, node, ending, asked["timeout_min"], used_minutes, asked_mb, used_mb)
        new = not self.path.exists() or self.path.stat().st_size == 0
        with self.path.open("a", encoding="utf-8") as file:
            for line in ([_COLUMNS] if new else []) + [(*row, asked["cpus_per_task"], gpus)]:
                print(*line, sep="\t", file=file)
        if code == 0 and minutes is not None and mb is not None:
            most = self._most.setdefault(rule, Counter())
            most["jobs"] += 1
            values = {"minutes": minutes, "mb": mb, "minutes_asked": asked["timeout_min"], "mb_asked": asked_mb or 0}
            for name, value in values.items():
                most[name] = max(most[name], value)

    def advice(self) -> list[str]:
        """Return one line a rule: what its jobs took, and what to ask for next time."""
        lines = []
        for rule, most in sorted(self._most.items()):
            runtime = max(1, math.ceil(_MARGIN * most["minutes"]))
            memory = 100 * math.ceil(_MARGIN * most["mb"] / 100)
            lines.append(
                f"{rule}: {most['jobs']} jobs took at most {most['minutes']:.1f} of {most['minutes_asked']} min and "
                f"{most['mb']} of {most['mb_asked']} MB. Next time, ask for {rule}:runtime={runtime} "
                f"{rule}:mem_mb={memory}."
            )
        return lines
