"""From tasks to jobs of a cluster, by way of submitit."""

from collections.abc import Callable, Sequence
from logging import Logger
from pathlib import Path
from typing import Any

import submitit
from snakemake_interface_common.exceptions import WorkflowError
from submitit.core.utils import FailedSubmissionError

from snakemake_executor_plugin_submitit.dispatch import Task
from snakemake_executor_plugin_submitit.errors import explain_file_error
from snakemake_executor_plugin_submitit.job import JobCommand
from snakemake_executor_plugin_submitit.ledger import Entry, outputs_of
from snakemake_executor_plugin_submitit.nodes import Nodes
from snakemake_executor_plugin_submitit.resources import describe
from snakemake_executor_plugin_submitit.results import JobFiles
from snakemake_executor_plugin_submitit.sbatch import Sbatch

_NO_NODE_LEFT = "node configuration is not available"


class Submission:
    """Submits tasks that ask for the same.

    Args:
        cluster: The kind of cluster.
        folder: Where submitit keeps its files.
        requeue_limit: How often a job goes on after its time limit.
        nodes: Nodes to keep away from.
        note: Called with what was submitted, before any of it can start.
        logger: Where messages go.
    """

    def __init__(
        self,
        cluster: str,
        folder: Path,
        requeue_limit: int,
        nodes: Nodes,
        note: Callable[[Sequence[Task], list[Entry]], None],
        logger: Logger,
    ) -> None:
        self._cluster, self._folder, self._requeue_limit = cluster, folder, requeue_limit
        self._nodes, self._note, self._logger = nodes, note, logger
        self.sbatch = Sbatch()

    def submit(self, tasks: Sequence[Task]) -> list[Entry]:
        """Submit tasks.

        Returns:
            The job of each task, in their order.

        Raises:
            WorkflowError: A file could not be written; the message says which.
            FailedSubmissionError: What Slurm said.
        """
        try:
            entries = self._submit(tasks)
        except FailedSubmissionError as error:
            if not self._nodes.excluded or _NO_NODE_LEFT not in str(error):
                raise
            self._logger.warning(
                f"{self._cluster}: without {', '.join(self._nodes.excluded)} no node is left: allowed again."
            )
            self._nodes.forgive()
            entries = self._submit(tasks)
        except OSError as error:
            raise WorkflowError(explain_file_error(error, self._folder)) from error
        self._logger.info(
            f"Submitted {len(tasks)} jobs of {_name(tasks)} as {self._cluster} job {entries[0].job_id.split('_')[0]} "
            f"({describe(tasks[0].parameters)})."
        )
        return entries

    def _submit(self, tasks: Sequence[Task]) -> list[Entry]:
        executor = self._executor(tasks)
        commands = [JobCommand(task.command, minutes=task.parameters["timeout_min"]) for task in tasks]
        entries: list[Entry] = []

        def note(ids: list[str]) -> None:
            pairs = zip(tasks, ids, strict=True)
            folder = str(self._folder)
            entries.extend(
                Entry(task.key, job_id, folder, self._cluster, outputs_of(task.job)) for task, job_id in pairs
            )
            self._note(tasks, entries)

        if self._cluster == "slurm":
            self.sbatch.submit(executor._executor, commands, note)
            return entries
        handles = executor.submit_array(commands)
        note([handle.job_id for handle in handles])
        if self._cluster == "debug":
            for handle in handles:
                JobFiles(self._folder, handle.job_id).write_exit_code(handle.result())
        return entries

    def _executor(self, tasks: Sequence[Task]) -> Any:
        is_slurm = self._cluster == "slurm"
        limit = {"slurm_max_num_timeout": self._requeue_limit} if is_slurm else {}
        executor = submitit.AutoExecutor(self._folder, self._cluster, **limit)
        parameters = dict(tasks[0].parameters)
        if is_slurm and self._nodes.excluded:
            extra = dict(parameters.get("slurm_additional_parameters", {}))
            extra["exclude"] = ",".join(filter(None, [extra.get("exclude"), *self._nodes.excluded]))
            parameters["slurm_additional_parameters"] = extra
        executor.update_parameters(name=_name(tasks), slurm_array_parallelism=len(tasks), **parameters)
        if is_slurm:
            # A key that accounting does not know would be refused; submitit has no public way to send none.
            executor._executor.update_parameters(wckey=None)
        return executor


def _name(tasks: Sequence[Task]) -> str:
    return "-".join(sorted({task.job.name for task in tasks}))[:100]
