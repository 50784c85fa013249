"""The executor: submits arrays, polls, takes up jobs of an earlier head process, cancels."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import submitit
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from submitit.core.utils import FailedJobError, FailedSubmissionError

from snakemake_executor_plugin_submitit.clusters import JobState, make_cluster
from snakemake_executor_plugin_submitit.errors import explain_refusal
from snakemake_executor_plugin_submitit.job import JobCommand
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger, job_key
from snakemake_executor_plugin_submitit.resources import describe, submission_parameters
from snakemake_executor_plugin_submitit.results import JobFiles

# Slurm's default limit (MaxArraySize) is 1001.
_ARRAY_SIZE = 1000
# A result may take a moment to appear on a shared file system.
_POLLS_WITHOUT_RESULT = 2
# Reasons for which a job waits until somebody changes something.
_STUCK = {
    "AccountNotAllowed",
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
    "JobHeldAdmin",
    "JobHeldUser",
    "PartitionDown",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "QOSNotAllowed",
}


class Executor(RemoteExecutor):
    """Sends jobs to a cluster, as one array for each distinct set of resources."""

    def __post_init__(self) -> None:
        settings: Any = self.workflow.executor_settings
        self._cluster = make_cluster(settings.cluster)
        self._cluster.check()
        self._folder = _log_folder(settings.logdir, self.workflow.globals.get("config", {}))
        self._ledger = Ledger(Path(self.workflow.persistence.path) / "submitit" / "ledger.jsonl")
        self._forget_ended(before=psutil.Process().create_time())
        self._entries: dict[str, Entry] = {}
        self._polls_without_result: dict[str, int] = {}
        self._warned: set[str] = set()
        self._earlier_folders: set[Path] = set()
        self.next_seconds_between_status_checks = settings.poll_seconds or self._cluster.poll_seconds

    def _forget_ended(self, before: float) -> None:
        """Strike out jobs of an earlier head process that ended before some time, in seconds since the epoch.

        What ended before this process looked at outputs is wanted again by whoever asks for it now.
        """
        entries = [entry for entry in self._ledger.entries() if entry.cluster == self._cluster.name]
        states = self._cluster.states({entry.job_id: Path(entry.folder) for entry in entries}) if entries else {}
        for entry in entries:
            files = JobFiles(Path(entry.folder), entry.job_id)
            ended = files.ended_at()
            gone = ended is None and states is not None and not _is_alive(states.get(entry.job_id))
            if gone or (ended is not None and ended < before):
                self._ledger.remove([entry.key])
                if files.exit_code() == 0:
                    files.remove()
                JobFiles.remove_folder_without_logs(Path(entry.folder))

    def run_job(self, job: JobExecutorInterface) -> None:
        """Submit one job."""
        self.run_jobs([job])

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        """Submit ready jobs, one array for each distinct set of resources."""
        groups: dict[str, tuple[dict[str, Any], list[JobExecutorInterface]]] = {}
        earlier = self._earlier_jobs(jobs)
        for job in jobs:
            self.run_job_pre(job)
            if entry := earlier.get(job_key(job)):
                self.logger.info(f"Job {job.jobid} is {self._cluster.name} job {entry.job_id} of an earlier run.")
                self._earlier_folders.add(Path(entry.folder))
                self._register(job, entry)
                continue
            try:
                parameters = submission_parameters(job.resources, job.threads)
            except WorkflowError as error:
                return self._give_up(WorkflowError(f"rule {job.name}: {error}"))
            groups.setdefault(repr(parameters), (parameters, []))[1].append(job)
        for parameters, members in groups.values():
            for start in range(0, len(members), _ARRAY_SIZE):
                try:
                    self._submit(members[start : start + _ARRAY_SIZE], parameters)
                except (FailedJobError, FailedSubmissionError, OSError) as error:
                    return self._give_up(WorkflowError(explain_refusal(str(error), describe(parameters))))
        return None

    def _earlier_jobs(self, jobs: list[JobExecutorInterface]) -> dict[str, Entry]:
        """Return, by key, jobs of an earlier head process that are alive or have succeeded."""
        keys = [job_key(job) for job in jobs]
        entries = [entry for key in keys if (entry := self._ledger.find(key)) and entry.cluster == self._cluster.name]
        if not entries:
            return {}
        states = self._cluster.states({entry.job_id: Path(entry.folder) for entry in entries})
        if states is None:
            raise WorkflowError(
                "the queue cannot be read, and jobs of an earlier run may still be in it: try again later"
            )

        def is_usable(entry: Entry) -> bool:
            files = JobFiles(Path(entry.folder), entry.job_id)
            return _is_alive(states.get(entry.job_id)) or files.exit_code() == 0

        return {entry.key: entry for entry in entries if is_usable(entry)}

    def _submit(self, jobs: list[JobExecutorInterface], parameters: dict[str, Any]) -> None:
        settings: Any = self.workflow.executor_settings
        limit = {f"{self._cluster.name}_max_num_timeout": settings.requeue_limit}
        executor = submitit.AutoExecutor(self._folder, self._cluster.name, **(limit if self._is_slurm else {}))
        name = "-".join(sorted({job.name for job in jobs}))[:100]
        executor.update_parameters(name=name, slurm_array_parallelism=_ARRAY_SIZE, **parameters)
        if self._is_slurm:
            # A key that accounting does not know would be refused; submitit has no public way to send none.
            executor._executor.update_parameters(wckey=None)
        prefix = f"{settings.setup} && " if settings.setup else ""
        commands = [JobCommand(prefix + self.format_job_exec(job)) for job in jobs]
        with _uninterrupted():
            submitted = executor.submit_array(commands)
            entries = [
                Entry(job_key(job), handle.job_id, str(self._folder), self._cluster.name)
                for job, handle in zip(jobs, submitted, strict=True)
            ]
            self._ledger.add(entries)
            self._entries.update({entry.job_id: entry for entry in entries})
        self.logger.info(
            f"Submitted {len(jobs)} jobs of {name} as {self._cluster.name} job {entries[0].job_id.split('_')[0]} "
            f"({describe(parameters)})."
        )
        for job, entry, handle in zip(jobs, entries, submitted, strict=True):
            if self._cluster.name == "debug":
                JobFiles(self._folder, entry.job_id).write_exit_code(handle.result())
            self._register(job, entry)

    @property
    def _is_slurm(self) -> bool:
        return self._cluster.name == "slurm"

    def _register(self, job: JobExecutorInterface, entry: Entry) -> None:
        self._entries[entry.job_id] = entry
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=entry.job_id))

    def _give_up(self, error: WorkflowError) -> None:
        """Cancel everything and end the workflow with one message."""
        self._cancel_all()
        self.workflow.scheduler.executor_error_callback(error)

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Report jobs that have ended; yield the others."""
        if not active_jobs:
            return
        # States come first: a job that is gone from them has left its result by now, or never will.
        states = await asyncio.to_thread(self._cluster.states, self._folders(active_jobs))
        if states is None:
            self._warn_once("the queue cannot be read; jobs go on, and Snakemake asks again")
        succeeded = []
        for info in active_jobs:
            assert info.external_jobid is not None
            files = JobFiles(Path(self._entries[info.external_jobid].folder), info.external_jobid)
            code = files.exit_code()
            if code == 0:
                files.remove()
                self._close(info)
                succeeded.append(info)
            elif code is not None:
                self._fail(info, files, files.failure())
            elif states is not None and self._is_gone(info, states.get(info.external_jobid)):
                state = states.get(info.external_jobid)
                self._fail(info, files, f"ended as {state.name}" if state else "is gone from the queue")
            else:
                yield info
        # All at once, so that what they make ready is submitted together.
        for info in succeeded:
            self.report_job_success(info)

    def _folders(self, infos: list[SubmittedJobInfo]) -> dict[str, Path]:
        ids = [info.external_jobid for info in infos if info.external_jobid]
        return {job_id: Path(self._entries[job_id].folder) for job_id in ids}

    def _is_gone(self, info: SubmittedJobInfo, state: JobState | None) -> bool:
        """Tell whether a job without a result will never have one."""
        job_id = str(info.external_jobid)
        if state is not None and _is_alive(state):
            self._polls_without_result.pop(job_id, None)
            if state.reason in _STUCK:
                self._warn_once(f"jobs wait that cannot start until somebody acts: {state.reason}")
            return False
        polls = self._polls_without_result.get(job_id, 0) + 1
        self._polls_without_result[job_id] = polls
        return polls >= _POLLS_WITHOUT_RESULT

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            self.logger.warning(f"{self._cluster.name}: {message}.")

    def _fail(self, info: SubmittedJobInfo, files: JobFiles, how: str) -> None:
        self._close(info)
        tail = files.tail()
        message = f"{self._cluster.name} job {info.external_jobid} {how}. The end of {files.log}:\n{tail}\n"
        self.report_job_error(info, msg=message)

    def _close(self, info: SubmittedJobInfo) -> None:
        entry = self._entries.pop(str(info.external_jobid))
        self._polls_without_result.pop(entry.job_id, None)
        self._ledger.remove([entry.key])

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel all jobs, also those that are being looked at just now."""
        self._cancel_all()

    def _cancel_all(self) -> None:
        entries = list(self._entries.values())
        self._cluster.cancel({entry.job_id: Path(entry.folder) for entry in entries})
        self._ledger.remove([entry.key for entry in entries])

    def shutdown(self) -> None:
        """Stop polling, and leave no folder behind that holds no failed job's log."""
        super().shutdown()
        self._forget_ended(before=time.time())
        self._ledger.remove_file_if_empty()
        for folder in {self._folder, *self._earlier_folders}:
            JobFiles.remove_folder_without_logs(folder)


def _is_alive(state: JobState | None) -> bool:
    return state is not None and state.alive


def _log_folder(template: str, config: dict[str, Any]) -> Path:
    """Make a folder of its own for this run: job ids of other kinds of clusters repeat.

    Raises:
        WorkflowError: It cannot be made, or names a setting that is not there.
    """
    try:
        parent = Path(template.format(config=config)).absolute()
    except (KeyError, IndexError, AttributeError, ValueError) as error:
        raise WorkflowError(f"--submitit-logdir {template}: no such setting: {error}") from error
    folder = parent / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise WorkflowError(
            f"--submitit-logdir {parent}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    return folder


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off until what is submitted is also noted down."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[Any] = []
    previous = signal.signal(signal.SIGINT, lambda signum, frame: pressed.append(frame))
    # The mask is for sbatch, which a terminal's Ctrl-C would reach as well.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        signal.signal(signal.SIGINT, previous)
    if pressed:
        raise KeyboardInterrupt
