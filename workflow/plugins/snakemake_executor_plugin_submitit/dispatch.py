"""Jobs on their way to the cluster: submitted as arrays, and kept here while the cluster takes no more."""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import Logger
from typing import Any

from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from submitit.core.utils import FailedSubmissionError

from snakemake_executor_plugin_submitit.errors import explain_refusal
from snakemake_executor_plugin_submitit.reasons import Response, find_refusal
from snakemake_executor_plugin_submitit.resources import describe

# Slurm's default limit (MaxArraySize) is 1001.
_ARRAY_SIZE = 1000
_LONGEST_PAUSE_SECONDS = 120.0
# Snakemake hands jobs over one by one when others end together; one array is made of them.
_GATHER_SECONDS = 0.3


@dataclass
class Task:
    """A job of Snakemake's as the cluster gets it.

    Attributes:
        job: The job.
        key: :func:`~snakemake_executor_plugin_submitit.ledger.job_key` of it.
        command: What runs on the node.
        parameters: What it asks for.
        restarts: How often it was submitted again through no fault of its own.
    """

    job: JobExecutorInterface
    key: str
    command: str
    parameters: dict[str, Any]
    restarts: int = 0


def groups(tasks: Sequence[Task]) -> list[list[Task]]:
    """Sort tasks into those that ask for the same, and so can share an array."""
    found: dict[str, list[Task]] = {}
    for task in tasks:
        found.setdefault(repr(task.parameters), []).append(task)
    return list(found.values())


class Dispatcher:
    """Submits tasks in a thread of its own, so that neither Snakemake nor Ctrl-C waits for Slurm.

    Args:
        name: The cluster's name, for messages.
        submit: Submits tasks of one group, or raises what it was refused with.
        settle: Undoes submissions whose answer was lost; returns whether that could be done.
        give_up: Called with the line that ends the workflow.
        out: Returns how many jobs are on the cluster.
        logger: Where messages go.
        pause_seconds: The first pause; later ones are longer.
    """

    def __init__(
        self,
        name: str,
        submit: Callable[[Sequence[Task]], None],
        settle: Callable[[], bool],
        give_up: Callable[[str], None],
        out: Callable[[], int],
        logger: Logger,
        pause_seconds: float,
    ) -> None:
        self._name, self._submit, self._settle, self._give_up = name, submit, settle, give_up
        self._out, self._logger = out, logger
        self._shortest = self._pause = pause_seconds
        self._changed = threading.Condition()
        self._waiting: list[Task] = []
        self._stopped = False
        self._next_try = 0.0
        self._array_size = _ARRAY_SIZE
        self._sizes: dict[str, int] = {}
        self._said: str | None = None
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._thread.start()

    def put(self, tasks: Sequence[Task]) -> None:
        """Take tasks; they are submitted in a moment where the cluster takes them."""
        with self._changed:
            if not self._waiting:
                self._next_try = time.monotonic() + _GATHER_SECONDS
            self._waiting.extend(tasks)
            self._changed.notify()

    def jobs_have_ended(self) -> None:
        """Try again in a moment: there may be places for what waits."""
        with self._changed:
            self._next_try = min(self._next_try, time.monotonic() + _GATHER_SECONDS)
            self._changed.notify()

    def stop(self) -> None:
        """Submit nothing more. What :func:`submit` is doing has to be ended by others."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify()

    def join(self) -> None:
        """Wait until nothing is being submitted."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        # A terminal's Ctrl-C would reach sbatch as well, between its submission and its answer.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        while True:
            with self._changed:
                while not self._stopped and (not self._waiting or time.monotonic() < self._next_try):
                    self._changed.wait(self._next_try - time.monotonic() if self._waiting else None)
                if self._stopped:
                    return
                tasks = list(self._waiting)
            try:
                self._try(tasks)
            except Exception as error:
                # Nobody else would hear of it: Snakemake would wait for its jobs forever.
                self._give_up(str(error) or repr(error))
            if not self._waiting:
                self._said = None

    def _try(self, tasks: list[Task]) -> None:
        """Submit what the cluster takes now."""
        answers = [self._try_group(group) for group in groups(tasks)]
        if not all(answers):
            self._next_try = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    def _try_group(self, tasks: list[Task]) -> bool:
        """Submit tasks of one group; return whether all are on the cluster."""
        group = repr(tasks[0].parameters)
        while tasks and not self._stopped:
            size = min(len(tasks), self._array_size, self._sizes.get(group, _ARRAY_SIZE))
            try:
                if not self._settle():
                    return self._wait("Slurm does not answer")
                self._submit(tasks[:size])
            except FailedSubmissionError as error:
                if not self._smaller(group, size, str(error)):
                    return self._refused(tasks[0], str(error))
                continue
            with self._changed:
                self._waiting = [task for task in self._waiting if task not in tasks[:size]]
            tasks = tasks[size:]
            self._sizes[group] = 2 * size
            self._pause = self._shortest
        return not tasks

    def _smaller(self, group: str, size: int, said: str) -> bool:
        """Halve what is submitted at a time, where that can help; return whether it was."""
        reason = find_refusal(said)
        if size == 1 or reason is None or reason.response not in (Response.FEWER, Response.SPLIT):
            return False
        if reason.response is Response.SPLIT:
            self._array_size = size // 2
        self._sizes[group] = size // 2
        return True

    def _refused(self, task: Task, said: str) -> bool:
        reason = find_refusal(said)
        if reason is not None and reason.response in (Response.FEWER, Response.LATER):
            return self._wait(reason.sign)
        if not self._stopped:
            self._give_up(explain_refusal(said, describe(task.parameters)))
        return False

    def _wait(self, why: str) -> bool:
        """Say why jobs wait here, once until something else is the matter or nothing waits any more."""
        if why != self._said and not self._stopped:
            self._said = why
            self._logger.warning(
                f"{self._name} takes no more jobs for now ({why}): {self._out()} are out, {len(self._waiting)} wait "
                "here and are submitted as soon as it does."
            )
        return False
