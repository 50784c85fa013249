"""Submission to Slurm: a call of ``sbatch`` that can be ended, and what it took although nobody heard its answer."""

import getpass
import os
import re
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission, FailedSubmissionError, JobPaths

from snakemake_executor_plugin_submitit.clusters import COMMAND_SECONDS, ask
from snakemake_executor_plugin_submitit.reasons import Response, find_refusal

# Variables for sbatch that count where the script says nothing of them; all others would come before the script.
_DEFAULTS = {f"SBATCH_{name.upper()}": name for name in ("partition", "account", "qos", "constraint", "reservation")}
# Where Snakemake itself runs in a job, these are that job's, but for what says where the cluster is.
_OF_JOBS = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
_CLUSTER = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS"}

# sbatch says so and goes on for two minutes by itself, deaf to Ctrl-C and to jobs that end meanwhile.
_RETRIES_BY_ITSELF = "retrying"


class Sbatch:
    """Submits arrays of commands, one call at a time.

    submitit writes the script and reads the pickles on the node. The call is made here, because submitit's own can be
    neither ended nor undone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._unanswered: list[Path] = []

    def submit(self, executor: Any, commands: Sequence[Callable[[], int]], note: Callable[[list[str]], None]) -> None:
        """Submit commands as one job, or one array of several.

        Args:
            executor: A ``submitit.SlurmExecutor``, its parameters set.
            commands: What runs on the nodes.
            note: Called with the jobs' ids before any of them can start its command.

        Raises:
            FailedSubmissionError: Slurm did not take them; nothing is left of them.
            OSError: A file could not be written; likewise.
        """
        folder = Path(executor.folder)
        parameters = {**executor.parameters, **({"map_count": len(commands)} if len(commands) > 1 else {})}
        script = folder / f".submission_file_{uuid.uuid4().hex}.sh"
        pickles: list[Path] = []
        try:
            for command in commands:
                pickles.append(folder / f"{uuid.uuid4().hex}.pkl")
                delayed = DelayedSubmission(command)
                delayed.set_timeout(parameters["time"], executor.max_num_timeout)
                delayed.dump(pickles[-1])
            script.write_text(_script(executor, parameters), encoding="utf-8")
            job_id = self._call(script, _environment({*parameters, *parameters.get("additional_parameters", {})}))
            ids = [f"{job_id}_{index}" for index in range(len(commands))] if len(commands) > 1 else [job_id]
            # Whoever is killed between the two lines leaves a job that finds no pickle, and so runs nothing.
            note(ids)
            for pickle, name in zip(pickles, ids, strict=True):
                pickle.rename(JobPaths(folder, name).submitted_pickle)
        finally:
            for path in [*pickles, script]:
                path.unlink(missing_ok=True)

    def _call(self, script: Path, environment: dict[str, str]) -> str:
        with self._lock:
            if self._stopped:
                raise FailedSubmissionError("stopped")
            self._process = process = subprocess.Popen(
                ["sbatch", str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
            )
        started = time.monotonic()
        timer = threading.Timer(COMMAND_SECONDS, process.terminate)
        timer.start()
        said = ""
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                said += line
                if _RETRIES_BY_ITSELF in line:
                    process.terminate()
        timer.cancel()
        if time.monotonic() - started >= COMMAND_SECONDS:
            said += f"sbatch gave no answer for {COMMAND_SECONDS} s"
        job = re.search(r"^Submitted batch job (\d+)", said, re.MULTILINE)
        if job and process.returncode == 0:
            return job.group(1)
        reason = find_refusal(said)
        if self._stopped or (reason and reason.response is Response.LATER):
            self._unanswered.append(script)
        raise FailedSubmissionError(said)

    def take_back(self) -> bool:
        """Cancel what Slurm took although its answer was lost; return whether nothing of the kind can be left."""
        if not self._unanswered:
            return True
        queue = ask(["squeue", "--noheader", "--user", getpass.getuser(), "--format=%F|%o"])
        if queue is None:
            return False
        scripts = {str(path) for path in self._unanswered}
        rows = [line.partition("|") for line in queue.splitlines()]
        ids = sorted({job_id.strip() for job_id, _, script in rows if script.strip() in scripts})
        if ids and ask(["scancel", *ids]) is None:
            return False
        self._unanswered.clear()
        return True

    def stop(self) -> None:
        """Submit nothing more, and end the call that is under way."""
        with self._lock:
            self._stopped = True
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()


def _environment(given: Collection[str]) -> dict[str, str]:
    """Return the environment that jobs are submitted from, and get.

    Args:
        given: What the script asks for, by name.
    """
    is_in_job = "SLURM_JOB_ID" in os.environ

    def stays(name: str) -> bool:
        if name.startswith("SBATCH_"):
            return name in _DEFAULTS and _DEFAULTS[name] not in given
        return name in _CLUSTER or not (is_in_job and name.startswith(_OF_JOBS))

    return {name: value for name, value in os.environ.items() if stays(name)}


def _script(executor: Any, parameters: dict[str, Any]) -> str:
    """Return submitit's script."""
    saved = executor.parameters
    executor.parameters = parameters
    try:
        text = executor._make_submission_file_text(executor._submitit_command_str, "")
    finally:
        executor.parameters = saved
    return str(text)
