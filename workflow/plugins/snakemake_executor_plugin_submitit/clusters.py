"""The places that jobs can go to: is it usable, which jobs are alive, and how they are cancelled."""

import getpass
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
from snakemake_interface_common.exceptions import WorkflowError

_QUEUE_SECONDS = 60
_ALIVE = {
    "COMPLETING",
    "CONFIGURING",
    "PENDING",
    "PREEMPTED",
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


@dataclass(frozen=True)
class JobState:
    """What a cluster says of a job.

    Attributes:
        name: Slurm's name for the state.
        reason: Why it waits, or nothing.
    """

    name: str
    reason: str = ""

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

    def cancel(self, jobs: Mapping[str, Path]) -> None:
        """End jobs, with all their processes."""
        ...


class Slurm:
    """Slurm, with or without accounting: only ``squeue`` is asked."""

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
        command = ["squeue", "--noheader", "--array", "--states=all", "--user", getpass.getuser(), "--format=%i|%T|%r"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=_QUEUE_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        if answer.returncode != 0:
            return None
        rows = (line.strip().split("|", 2) for line in answer.stdout.splitlines() if line.count("|") >= 2)
        return {job_id: JobState(state, reason) for job_id, state, reason in rows if job_id in jobs}

    def cancel(self, jobs: Mapping[str, Path]) -> None:
        """Cancel all jobs with one call."""
        if jobs:
            subprocess.run(["scancel", *jobs], capture_output=True, timeout=_QUEUE_SECONDS)


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

    def cancel(self, jobs: Mapping[str, Path]) -> None:
        """End the jobs' commands first, by way of the controllers, then the controllers."""
        processes = [process for job_id, folder in jobs.items() if (process := _controller(job_id, folder))]
        for process in processes:
            process.terminate()
        _, left = psutil.wait_procs(processes, timeout=self._PATIENCE_SECONDS)
        for process in left:
            for member in [*process.children(recursive=True), process]:
                member.kill()


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

    def cancel(self, jobs: Mapping[str, Path]) -> None:
        """Do nothing."""


def make_cluster(name: str) -> Cluster:
    """Return the cluster called ``name``."""
    clusters: list[Cluster] = [Slurm(), Local(), Debug()]
    return {cluster.name: cluster for cluster in clusters}[name]
