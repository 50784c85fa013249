"""The places that jobs can go to: is it usable, which jobs are alive, and how they are canceled."""

import getpass
import re
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import psutil
from snakemake_interface_common.exceptions import WorkflowError

COMMAND_SECONDS = 60
"""How long a command of Slurm's may take to answer."""

_ALIVE = {
    "COMPLETING",
    "CONFIGURING",
    "PENDING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESIZING",
    "RESV_DEL_HOLD",
    "RUNNING",
    "SIGNALING",
    "SPECIAL_EXIT",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
}
# squeue shows how a job's script has ended as wait(2) does: exit code 143, which shells and jobs have after SIGTERM, or
# the signal itself. sacct shows it as "code:signal", and 143 without its highest bit.
_TERMINATED = {str(143 << 8), "15", "143:0", "15:0", "0:15"}
# What scancel can still end.
_TO_CANCEL = {"CONFIGURING", "PENDING", "REQUEUED", "REQUEUE_HOLD", "RUNNING", "SUSPENDED"}


@dataclass(frozen=True)
class JobState:
    """What a cluster says of a job.

    Attributes:
        name: Slurm's name for the state.
        reason: Why it waits, or nothing.
        terminated: Whether SIGTERM has ended it.
        node: Where it ran, or nothing.
    """

    name: str
    reason: str = ""
    terminated: bool = False
    node: str = ""

    @property
    def alive(self) -> bool:
        """Whether it waits, runs, or will run again."""
        return self.name in _ALIVE


class Cluster(Protocol):
    """A place that jobs can go to."""

    name: str
    poll_seconds: int

    def check(self) -> None:
        """Raise a WorkflowError where it cannot be used from here."""
        ...

    def states(self, jobs: Mapping[str, Path]) -> dict[str, JobState] | None:
        """Return the states of jobs, given with their folders; None if nobody can tell. What is gone is left out."""
        ...

    def ended(self, jobs: Collection[str]) -> dict[str, JobState]:
        """Return what is known of jobs that have left the queue; nothing where no accounts are kept."""
        ...

    def cancel(self, jobs: Mapping[str, Path]) -> list[str]:
        """End jobs, with all their processes; return those that may still run because nobody answers."""
        ...


class Slurm:
    """Slurm: ``squeue`` is asked, and accounting, where there is any, for what has left the queue."""

    name = "slurm"
    poll_seconds = 10

    def check(self) -> None:
        """Look for Slurm's commands."""
        for program in ("sbatch", "squeue", "scancel"):
            if shutil.which(program) is None:
                raise WorkflowError(
                    f"there is no {program} on this machine: start Snakemake on a node that submits to Slurm, or add "
                    "--submitit-cluster local --jobs 2 to stay on this one"
                )

    def states(self, jobs: Mapping[str, Path]) -> dict[str, JobState] | None:
        """Ask for all jobs of the user with one call."""
        fields = ",".join(f"{name}:|" for name in ("JobArrayID", "State", "Reason", "exit_code", "NodeList"))
        command = ["squeue", "--noheader", "--array", "--states=all", "--user", getpass.getuser(), "--Format", fields]
        answer = ask(command)
        if answer is None:
            return None
        states = {}
        for line in answer.splitlines():
            job_id, state, reason, code, node, *_ = [*line.strip().split("|"), "", "", "", ""]
            if job_id in jobs:
                states[job_id] = JobState(state, reason, code in _TERMINATED, node)
        return states

    def ended(self, jobs: Collection[str]) -> dict[str, JobState]:
        """Ask accounting, where there is any, with one call."""
        if not jobs or not self._keeps_accounts:
            return {}
        command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,ExitCode,NodeList"]
        answer = ask([*command, f"--jobs={','.join(sorted(jobs))}"])
        rows = [line.split("|") for line in (answer or "").splitlines() if line.count("|") == 3]
        states = {
            # "CANCELLED by 1000" is one of them.
            job_id: JobState(state.split()[0], "", code in _TERMINATED, node)
            for job_id, state, code, node in rows
            if job_id in jobs
        }
        return {job_id: state for job_id, state in states.items() if not state.alive}

    @cached_property
    def _keeps_accounts(self) -> bool:
        configuration = ask(["scontrol", "show", "config"]) or ""
        return (
            re.search(r"^AccountingStorageType\s*=\s*accounting_storage/slurmdbd", configuration, re.MULTILINE)
            is not None
        )

    def cancel(self, jobs: Mapping[str, Path]) -> list[str]:
        """Cancel all jobs with one call."""
        if not jobs or ask(["scancel", *jobs]) is not None:
            return []
        # It also fails where one of the jobs has ended meanwhile.
        states = self.states(jobs)
        return list(jobs) if states is None else [job for job, state in states.items() if state.name in _TO_CANCEL]


def ask(command: list[str]) -> str | None:
    """Return what a command of Slurm's prints, or None where it fails or does not answer."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    except (subprocess.TimeoutExpired, OSError):
        return None
    return answer.stdout if answer.returncode == 0 else None


class Local:
    """Processes on this machine; a job is named by the process id of submitit's controller."""

    name = "local"
    poll_seconds = 1
    _PATIENCE_SECONDS = 25.0

    def check(self) -> None:
        """Do nothing: processes can always be started."""

    def states(self, jobs: Mapping[str, Path]) -> dict[str, JobState] | None:
        """Look at the process table."""
        return {job_id: JobState("RUNNING") for job_id, folder in jobs.items() if _controller(job_id, folder)}

    def ended(self, jobs: Collection[str]) -> dict[str, JobState]:
        """Return nothing: a process leaves no trace."""
        return {}

    def cancel(self, jobs: Mapping[str, Path]) -> list[str]:
        """End the jobs' commands first, by way of the controllers, then the controllers."""
        processes = [process for job_id, folder in jobs.items() if (process := _controller(job_id, folder))]
        for process in processes:
            process.terminate()
        _, left = psutil.wait_procs(processes, timeout=self._PATIENCE_SECONDS)
        for process in left:
            for member in [*process.children(recursive=True), process]:
                member.kill()
        return []


def _controller(job_id: str, folder: Path) -> psutil.Process | None:
    """Return the controller's process, unless it has ended or the number is another process's by now."""
    try:
        process = psutil.Process(int(job_id))
        alive = process.status() != psutil.STATUS_ZOMBIE and str(folder) in process.cmdline()
    except psutil.Error:
        return None
    return process if alive else None


class Debug:
    """Jobs that have run by the time they are submitted."""

    name = "debug"
    poll_seconds = 1

    def check(self) -> None:
        """Do nothing."""

    def states(self, jobs: Mapping[str, Path]) -> dict[str, JobState] | None:
        """Return nothing: no job is alive."""
        return {}

    def ended(self, jobs: Collection[str]) -> dict[str, JobState]:
        """Return nothing: a job has left its result."""
        return {}

    def cancel(self, jobs: Mapping[str, Path]) -> list[str]:
        """Do nothing."""
        return []


def make_cluster(name: str) -> Cluster:
    """Return the cluster called ``name``."""
    clusters: list[Cluster] = [Slurm(), Local(), Debug()]
    return {cluster.name: cluster for cluster in clusters}[name]
