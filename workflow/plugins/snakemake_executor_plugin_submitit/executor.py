"""The executor: hands jobs on, polls, takes up jobs of an earlier head process, cancels."""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Sequence, Set
from pathlib import Path
from typing import Any

import psutil
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.alone import hold_alone
from snakemake_executor_plugin_submitit.attempts import Attempts
from snakemake_executor_plugin_submitit.cancel import cancel_until_done, wait_until_ended
from snakemake_executor_plugin_submitit.clusters import JobState, make_cluster
from snakemake_executor_plugin_submitit.dispatch import Dispatcher, Task, groups
from snakemake_executor_plugin_submitit.endings import Ending, Watch, ending_of, is_usable
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger, job_key, outputs_of
from snakemake_executor_plugin_submitit.nodes import Nodes
from snakemake_executor_plugin_submitit.pace import lift_default_rate_limit
from snakemake_executor_plugin_submitit.partitions import choose_partition, parse_partitions
from snakemake_executor_plugin_submitit.reasons import WAITS
from snakemake_executor_plugin_submitit.records import Records
from snakemake_executor_plugin_submitit.resources import submission_parameters
from snakemake_executor_plugin_submitit.results import JobFiles, make_log_folder
from snakemake_executor_plugin_submitit.submission import Submission
from snakemake_executor_plugin_submitit.trouble import read_trouble
from snakemake_executor_plugin_submitit.usage import Efficiency


class Executor(RemoteExecutor):
    """Sends jobs to a cluster, as one array for each distinct set of resources."""

    def __post_init__(self) -> None:
        settings: Any = self.workflow.executor_settings
        self._cluster = make_cluster(settings.cluster)
        self._cluster.check()
        records = Path(self.workflow.persistence.path) / "submitit"
        self._lock = hold_alone(records / "lock")
        self._folder = make_log_folder(settings.logdir, self.workflow.globals.get("config", {}))
        self._ledger, self._records = Ledger(records / "ledger.jsonl"), Records(self.workflow)
        self._forget_ended(before=psutil.Process().create_time())
        self._earlier = self._ledger.entries()
        self._entries: dict[str, Entry] = {}
        self._tasks: dict[str, Task] = {}
        self._attempts = Attempts()
        self._nodes = Nodes(settings.node_failures, self._warn_once)
        self._partitions = parse_partitions(settings.partitions)
        self._efficiency = Efficiency(self._folder.parent / "efficiency.tsv")
        self._warned: set[str] = set()
        self._earlier_folders: set[Path] = set()
        self._canceled = False
        self._poll_seconds = settings.poll_seconds or self._cluster.poll_seconds
        self.next_seconds_between_status_checks = self._poll_seconds
        self._watch = Watch(self._cluster.ended, self.workflow.execution_settings.latency_wait, self._warn_once)
        self._submission = Submission(
            cluster=self._cluster.name,
            folder=self._folder,
            requeue_limit=settings.requeue_limit,
            nodes=self._nodes,
            note=self._note,
            logger=self.logger,
        )
        self._dispatcher = Dispatcher(
            name=self._cluster.name,
            submit=self._submit,
            settle=self._submission.sbatch.take_back,
            give_up=lambda line: self._give_up(WorkflowError(line)),
            out=lambda: len(self._entries),
            logger=self.logger,
            pause_seconds=self._poll_seconds,
        )

    def _forget_ended(self, before: float) -> None:
        """Strike out jobs of an earlier head process that ended before some time, in seconds since the epoch.

        What ended before this process looked at outputs is wanted again by whoever asks for it now: by the records that
        were written as it was submitted, Snakemake has told what was made as it is wanted.
        """
        entries = [entry for entry in self._ledger.entries() if entry.cluster == self._cluster.name]
        states = self._states(entries)
        for entry in entries:
            files = JobFiles(Path(entry.folder), entry.job_id)
            ended = files.ended_at()
            gone = ended is None and states is not None and not is_usable(files, states.get(entry.job_id))
            if gone or (ended is not None and ended < before):
                self._ledger.remove([entry.key])
                if files.exit_code() == 0:
                    files.remove()
                JobFiles.remove_folder_without_logs(Path(entry.folder))

    def run_job(self, job: JobExecutorInterface) -> None:
        """Submit one job."""
        self.run_jobs([job])

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        """Hand ready jobs to the dispatcher, but those that an earlier head process has submitted."""
        lift_default_rate_limit(self.workflow.scheduler)
        keys = [job_key(job) for job in jobs]
        if not self._end_outdated({path for job in jobs for path in outputs_of(job)}, keys):
            return None
        earlier = self._earlier_jobs(keys)
        tasks: list[Task] = []
        for job, key in zip(jobs, keys, strict=True):
            self.run_job_pre(job)
            try:
                task = self._task(job, key)
            except WorkflowError as error:
                return self._give_up(WorkflowError(f"rule {job.name}: {error}"))
            if entry := earlier.get(task.key):
                self.logger.info(f"Job {job.jobid} is {self._cluster.name} job {entry.job_id} of an earlier run.")
                self._earlier_folders.add(Path(entry.folder))
                self._register(task, entry)
            else:
                tasks.append(task)
        if self._cluster.name == "debug":
            for group in groups(tasks):
                self._submit(group)
        else:
            self._dispatcher.put(tasks)
        return None

    def _task(self, job: JobExecutorInterface, key: str) -> Task:
        settings: Any = self.workflow.executor_settings
        # Line by line, so that none fails unnoticed.
        lines = [line.strip() for line in (settings.setup or "").splitlines()]
        prefix = "".join(f"{line} && " for line in lines if line and not line.startswith("#"))
        resources = self._attempts.resources(job, key)
        parameters = submission_parameters(resources, job.threads)
        if partition := choose_partition(self._partitions, parameters):
            parameters["slurm_partition"] = partition
        return Task(job, key, prefix + self.format_job_exec(job), parameters)

    def _end_outdated(self, outputs: Set[str], keys: Collection[str]) -> bool:
        """Cancel jobs of an earlier head process that make the same files otherwise, as they might end later.

        Returns:
            Whether they have ended.
        """
        cluster = self._cluster
        outdated = [
            entry
            for entry in self._earlier
            if entry.cluster == cluster.name and entry.key not in keys and not outputs.isdisjoint(entry.outputs)
        ]
        if not outdated:
            return True
        self.logger.info(
            f"{len(outdated)} {cluster.name} jobs of an earlier run make the same files from other settings or "
            f"inputs, and are canceled: {', '.join(entry.job_id for entry in outdated)}."
        )
        folders, take_back = _folders(outdated), self._submission.sbatch.take_back
        if cancel_until_done(cluster, folders, take_back, self.logger, self._poll_seconds):
            self._give_up(WorkflowError(f"jobs of an earlier run could not be canceled: {', '.join(folders)}"))
            return False
        wait_until_ended(cluster, folders, self.logger, self._poll_seconds)
        self._ledger.remove([entry.key for entry in outdated])
        self._earlier = [entry for entry in self._earlier if entry not in outdated]
        return True

    def _earlier_jobs(self, keys: list[str]) -> dict[str, Entry]:
        """Return, by key, jobs of an earlier head process that are alive or have succeeded."""
        entries = [entry for key in keys if (entry := self._ledger.find(key)) and entry.cluster == self._cluster.name]
        if not entries:
            return {}
        while (states := self._states(entries)) is None:
            self._warn_once("the queue cannot be read, and jobs of an earlier run may still be in it; waiting for it")
            time.sleep(self._poll_seconds)
        return {
            entry.key: entry
            for entry in entries
            if is_usable(JobFiles(Path(entry.folder), entry.job_id), states.get(entry.job_id))
        }

    def _states(self, entries: Sequence[Entry]) -> dict[str, JobState] | None:
        """Return what the queue says of jobs, and accounting of those that have left it; None if nobody can tell."""
        states = self._cluster.states(_folders(entries)) if entries else {}
        if states is None:
            return None
        return {**states, **self._cluster.ended([entry.job_id for entry in entries if entry.job_id not in states])}

    def _submit(self, tasks: Sequence[Task]) -> None:
        for task, entry in zip(tasks, self._submission.submit(tasks), strict=True):
            self._register(task, entry)

    def _note(self, tasks: Sequence[Task], entries: list[Entry]) -> None:
        # First in memory: what is on the cluster is canceled also when the disk is full.
        self._entries.update({entry.job_id: entry for entry in entries})
        self._ledger.add(entries)
        self._records.write((task.job, entry.job_id) for task, entry in zip(tasks, entries, strict=True))

    def _register(self, task: Task, entry: Entry) -> None:
        self._entries[entry.job_id] = entry
        self._tasks[entry.job_id] = task
        self.report_job_submission(SubmittedJobInfo(task.job, external_jobid=entry.job_id))

    def _give_up(self, error: WorkflowError) -> None:
        """Cancel everything and end the workflow with one message."""
        self._cancel_all()
        self.workflow.scheduler.executor_error_callback(error)

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Report jobs that have ended; yield the others."""
        if not active_jobs or self._canceled:
            return
        entries = [self._entries[str(info.external_jobid)] for info in active_jobs]
        # States come first: a job that is gone from them has left its result by now, unless files are late.
        states = await asyncio.to_thread(self._cluster.states, _folders(entries))
        if states is None:
            self._warn_once("the queue cannot be read; jobs go on, and Snakemake asks again")
        files = {entry.job_id: JobFiles(Path(entry.folder), entry.job_id) for entry in entries}
        succeeded = {job_id for job_id in files if files[job_id].exit_code() == 0}
        if states is not None:
            self._warn_of_waits(states)
            await asyncio.to_thread(self._watch.see, files.keys() - succeeded, states)
        ended = []
        for info in active_jobs:
            job_id = str(info.external_jobid)
            if job_id in succeeded or (states is not None and self._watch.has_ended(job_id, files[job_id])):
                ended.append(info)
            else:
                yield info
        # All at once, so that what they make ready is submitted together.
        for info in ended:
            self._end(info, files[str(info.external_jobid)])
        if ended:
            self._dispatcher.jobs_have_ended()

    def _warn_of_waits(self, states: dict[str, JobState]) -> None:
        for reason in {state.reason for state in states.values() if state.alive} & WAITS.keys():
            self._warn_once(f"jobs wait that cannot start until somebody acts: {reason}. To mend it, {WAITS[reason]}")

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            self.logger.warning(f"{self._cluster.name}: {message}.")

    def _end(self, info: SubmittedJobInfo, files: JobFiles) -> None:
        """Report one job's end, or submit it again where the end was not its fault."""
        settings: Any = self.workflow.executor_settings
        job_id = str(info.external_jobid)
        state = self._watch.last_state(job_id)
        ending = ending_of(files, state)
        task = self._tasks[job_id]
        how = files.failure() if files.exit_code() is not None else ""
        how = how or (f"ended as {state.name}" if state else "is gone from the queue")
        node = self._watch.node(job_id)
        judged = self._nodes.judge(node, task.key, ending, state.name if state else "")
        if self._cluster.name == "slurm":
            self._note_usage(task, job_id, ending, files)
        self._close(job_id)
        if ending is Ending.SUCCEEDED:
            files.remove()
            self.report_job_success(info)
        elif judged is Ending.INTERRUPTED and task.restarts < settings.requeue_limit:
            task.restarts += 1
            how += f" on {node}, now kept away from" if node in self._nodes.excluded else ""
            self.logger.info(
                f"{self._cluster.name} job {job_id} {how}, through no fault of its own. It is submitted again "
                f"({task.restarts} of at most {settings.requeue_limit} times)."
            )
            files.remove()
            self._dispatcher.put([task])
        else:
            self._attempts.note(task.key, ending)
            how = ": ".join(filter(None, [how, read_trouble(files.log)]))
            message = f"{self._cluster.name} job {job_id} {how}. The end of {files.log}:\n{files.tail()}\n"
            self.report_job_error(info, msg=message)

    def _note_usage(self, task: Task, job_id: str, ending: Ending, files: JobFiles) -> None:
        node, rule = self._watch.node(job_id), task.job.name
        try:
            self._efficiency.note(rule, job_id, node, ending.name.lower(), task.parameters, files.exit_code())
        except OSError as error:
            self._warn_once(f"{self._efficiency.path} cannot be written ({error.strerror}); jobs go on")

    def _close(self, job_id: str) -> None:
        entry = self._entries.pop(job_id)
        self._tasks.pop(job_id)
        self._watch.forget(job_id)
        self._ledger.remove([entry.key])

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel all jobs, also those that are being looked at or submitted just now."""
        self._cancel_all()

    def _cancel_all(self) -> None:
        self._canceled = True
        self._dispatcher.stop()
        self._submission.sbatch.stop()
        self._dispatcher.join()
        entries = list(self._entries.values())
        left = cancel_until_done(
            self._cluster, _folders(entries), self._submission.sbatch.take_back, self.logger, self._poll_seconds
        )
        self._ledger.remove([entry.key for entry in entries if entry.job_id not in left])

    def shutdown(self) -> None:
        """Stop polling, and leave no folder behind but of failed jobs' logs, and of jobs that the next run takes up."""
        self._dispatcher.stop()
        if self._ledger.entries():
            # They wait for files in there; what is removed instead is made for that.
            self._tmpdir = None
        super().shutdown()
        for line in self._efficiency.advice():
            self.logger.info(line)
        self._forget_ended(before=time.time())
        self._ledger.remove_file_if_empty()
        left = {Path(entry.folder) for entry in self._ledger.entries()}
        for folder in {self._folder, *self._earlier_folders} - left:
            JobFiles.remove_folder_without_logs(folder)


def _folders(entries: Sequence[Entry]) -> dict[str, Path]:
    return {entry.job_id: Path(entry.folder) for entry in entries}
