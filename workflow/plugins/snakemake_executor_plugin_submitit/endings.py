"""How jobs end: what a result and Slurm's last word on a job mean, and how long each is waited for."""

import time
from collections.abc import Callable, Collection, Mapping
from enum import Enum, auto

from snakemake_executor_plugin_submitit.clusters import JobState
from snakemake_executor_plugin_submitit.job import LIMIT_REACHED
from snakemake_executor_plugin_submitit.results import JobFiles
from snakemake_executor_plugin_submitit.trouble import had_no_step, ran_out_of_memory

# A job whose command has failed takes a moment to leave the queue, and its state then says why.
_POLLS_FOR_A_FAILURE = 2
# How many times latency-wait the result of a job is waited for that Slurm says is complete.
_LATENCIES_FOR_COMPLETED = 10
# submitit's words for a job that has reached its limit, and gone on from its checkpoint, as often as it may.
_TOO_OFTEN = "timed-out too many times"
_LOST_NODE = {"BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "REVOKED"}


class Ending(Enum):
    """How a job has ended."""

    SUCCEEDED = auto()
    FAILED = auto()
    OUT_OF_MEMORY = auto()
    OUT_OF_TIME = auto()
    INTERRUPTED = auto()
    """Preempted, its node lost, or not requeued when it was to be: none of it the job's fault."""
    UNSTARTED = auto()
    """Refused on its node before its command began, as in the seconds after the controller was started."""


def ending_of(files: JobFiles, state: JobState | None) -> Ending:
    """Return how a job has ended.

    Args:
        files: The job's files.
        state: Slurm's last word on it, if there is one.
    """
    code = files.exit_code()
    if code == 0:
        return Ending.SUCCEEDED
    name, how = state.name if state else "", files.failure() if code is not None else ""
    if name in _LOST_NODE or "'scontrol', 'requeue'" in how:
        return Ending.INTERRUPTED
    if name in ("TIMEOUT", "DEADLINE") or LIMIT_REACHED in how or _TOO_OFTEN in how:
        return Ending.OUT_OF_TIME
    if name == "OUT_OF_MEMORY" or ran_out_of_memory(files.log):
        return Ending.OUT_OF_MEMORY
    if code is None and state and state.terminated and name == "FAILED":
        return Ending.INTERRUPTED
    if code is None and had_no_step(files.log):
        return Ending.UNSTARTED
    return Ending.SUCCEEDED if code is None and name == "COMPLETED" else Ending.FAILED


def is_usable(files: JobFiles, state: JobState | None) -> bool:
    """Tell whether a job of an earlier head process is alive or has succeeded."""
    return (state is not None and state.alive) or ending_of(files, state) is Ending.SUCCEEDED


class Watch:
    """Follows jobs from poll to poll until it is certain how they have ended.

    Args:
        ask_accounting: Returns what accounting knows of jobs that have left the queue.
        latency_seconds: How long files may take to appear.
        warn: Called with what a user should know.
    """

    def __init__(
        self,
        ask_accounting: Callable[[Collection[str]], dict[str, JobState]],
        latency_seconds: float,
        warn: Callable[[str], None],
    ) -> None:
        self._ask, self._latency, self._warn = ask_accounting, latency_seconds, warn
        self._last: dict[str, JobState] = {}
        self._gone_since: dict[str, float] = {}
        self._polls: dict[str, int] = {}

    def see(self, jobs: Collection[str], states: Mapping[str, JobState]) -> None:
        """Take note of what the queue says; ask accounting once about what it says nothing of.

        Args:
            jobs: Those that have not succeeded.
            states: What the queue says, also of others.
        """
        self._last.update(states)
        now = time.monotonic()
        unknown = []
        for job_id in jobs:
            state = states.get(job_id)
            if state and state.alive:
                self._gone_since.pop(job_id, None)
                self._polls.pop(job_id, None)
                continue
            first = job_id not in self._gone_since
            self._gone_since.setdefault(job_id, now)
            self._polls[job_id] = self._polls.get(job_id, 0) + 1
            if first and self.last_state(job_id) is None:
                unknown.append(job_id)
        self._last.update(self._ask(unknown))

    def last_state(self, job_id: str) -> JobState | None:
        """Return Slurm's last word on a job, unless it was that the job lives."""
        state = self._last.get(job_id)
        return None if state is None or state.alive else state

    def node(self, job_id: str) -> str:
        """Return where a job ran, or nothing."""
        state = self._last.get(job_id)
        return state.node if state else ""

    def has_ended(self, job_id: str, files: JobFiles) -> bool:
        """Tell whether a job without success will not be heard of again."""
        if job_id not in self._gone_since:
            return False
        if files.exit_code() is not None:
            return True
        state, seconds = self.last_state(job_id), time.monotonic() - self._gone_since[job_id]
        if state is None:
            return seconds >= self._latency
        if state.name != "COMPLETED":
            return self._polls[job_id] >= _POLLS_FOR_A_FAILURE
        if seconds >= self._latency:
            self._warn("jobs that Slurm says are complete have no result yet: the file system shows files late")
        return seconds >= _LATENCIES_FOR_COMPLETED * self._latency

    def forget(self, job_id: str) -> None:
        """Drop what is known of a job."""
        for known in (self._last, self._gone_since, self._polls):
            known.pop(job_id, None)
