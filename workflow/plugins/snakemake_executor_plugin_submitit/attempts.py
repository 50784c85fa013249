"""What a job asks for when it is tried again: more of what it ran out of, memory or time, and of nothing else.

Snakemake counts attempts whatever the reason. A larger request waits longer in the queue, so that nobody should make
one for a job that was killed, or whose command has failed.
"""

from collections import Counter
from typing import Any

from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.endings import Ending

_MEMORY = ("mem_mb", "mem_mb_per_cpu")
_TIME = ("runtime",)


class Attempts:
    """Counts, for each job, how often it ran out of something."""

    def __init__(self) -> None:
        self._memory: Counter[str] = Counter()
        self._time: Counter[str] = Counter()

    def note(self, key: str, ending: Ending) -> None:
        """Note how a job has ended."""
        if ending is Ending.OUT_OF_MEMORY:
            self._memory[key] += 1
        elif ending is Ending.OUT_OF_TIME:
            self._time[key] += 1

    def resources(self, job: JobExecutorInterface, key: str) -> dict[str, Any]:
        """Return a job's resources, where memory and time are those of the attempts that ran out of them."""
        resources = dict(job.resources)
        attempt: Any = job.attempt
        for names, count in ((_MEMORY, self._memory[key]), (_TIME, self._time[key])):
            if attempt > 1 and count + 1 != attempt:
                job.attempt = count + 1
                resources.update({name: job.resources[name] for name in names if name in resources})
                job.attempt = attempt
        return resources
