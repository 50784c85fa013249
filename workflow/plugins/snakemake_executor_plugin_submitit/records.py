"""Snakemake's records of what outputs are made of and how, by which it later knows that settings have changed."""

import copy
from collections.abc import Iterable
from typing import Any

from snakemake_executor_plugin_submitit.ledger import members_of


class Records:
    """Writes the records of jobs as they are submitted, marked as unfinished.

    Snakemake writes them when the head process sees a job's end. Outputs of jobs that end while there is none would
    have no record, or an older one's, and would stand whatever the settings are by the time of the next run.

    Args:
        workflow: The head process's workflow.
    """

    def __init__(self, workflow: Any) -> None:
        self._workflow = workflow
        # What it writes at the end, but for taking away the mark: there may be an old file where the job will write.
        self._at_end = copy.copy(workflow.persistence)
        self._at_end._unmark_incomplete = lambda key: None

    def write(self, jobs: Iterable[tuple[Any, str]]) -> None:
        """Write the records of Snakemake jobs, each with what the cluster calls it.

        Raises:
            OSError: They cannot be written.
        """
        self._workflow.async_run(self._write(jobs))

    async def _write(self, jobs: Iterable[tuple[Any, str]]) -> None:
        for job, job_id in jobs:
            for member in members_of(job):
                self._workflow.persistence.started(member, job_id)
                await self._at_end.finished(member)
