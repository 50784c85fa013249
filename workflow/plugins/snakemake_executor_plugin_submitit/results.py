"""The files that submitit keeps of a job: result, logs, pickles."""

import os
import pickle
import time
from pathlib import Path
from typing import Any

import cloudpickle
from snakemake_interface_common.exceptions import WorkflowError
from submitit.core.utils import JobPaths

from snakemake_executor_plugin_submitit.errors import explain_file_error

_TAIL_LINES = 20


def make_log_folder(template: str, config: dict[str, Any]) -> Path:
    """Make a folder of its own for this run: job ids of other kinds of clusters repeat.

    Returns:
        Its absolute path.

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
        raise WorkflowError(explain_file_error(error, parent)) from error
    return folder


def write_result(path: Path, kind: str, value: object) -> None:
    """Write a result as submitit does, whole or not at all.

    Args:
        path: The result's file.
        kind: ``success`` or ``error``.
        value: What the job's function returned, or how it failed.
    """
    temporary = path.with_suffix(".new")
    temporary.write_bytes(cloudpickle.dumps((kind, value)))
    temporary.replace(path)


class JobFiles:
    """One job's files.

    Args:
        folder: Where submitit keeps them.
        job_id: The cluster's name for the job.
    """

    def __init__(self, folder: Path, job_id: str) -> None:
        self._paths = JobPaths(folder, job_id)
        self._folder, self._job_id = folder, job_id

    @property
    def log(self) -> Path:
        """What the job wrote to its standard error, Snakemake's messages among it."""
        return self._paths.stderr

    def _outcome(self) -> tuple[str, object] | None:
        try:
            with self._paths.result_pickle.open("rb") as file:
                outcome: tuple[str, object] = pickle.load(file)
                return outcome
        except (OSError, EOFError):
            # A file that another node has just replaced can be stale as well as missing.
            return None

    def exit_code(self) -> int | None:
        """Return the exit code of the job's command, -1 if it could not even run, None if there is no result yet."""
        outcome = self._outcome()
        if outcome is None:
            return None
        kind, value = outcome
        return value if kind == "success" and isinstance(value, int) else -1

    def ended_at(self) -> float | None:
        """Return when the result was written, in seconds since the epoch; None if there is none."""
        try:
            return self._paths.result_pickle.stat().st_mtime
        except FileNotFoundError:
            return None

    def failure(self) -> str:
        """Say how a job whose exit code is not 0 has failed."""
        kind, value = self._outcome() or ("error", "no result")
        if kind == "success":
            return f"failed with exit code {value}"
        return f"failed: {str(value).strip().splitlines()[-1]}"

    def write_exit_code(self, code: int) -> None:
        """Leave a result where submitit leaves none."""
        write_result(self._paths.result_pickle, "success", code)

    def tail(self) -> str:
        """Return the last lines of the log."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "(there is no log: did the node see this folder?)"
        return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])

    def remove(self) -> None:
        """Remove everything there is of the job."""
        for path in self._folder.glob(f"{self._job_id}_*"):
            path.unlink(missing_ok=True)

    @staticmethod
    def remove_folder_without_logs(folder: Path) -> None:
        """Remove a folder, unless there is a job's log in it."""
        if not folder.is_dir() or any(folder.glob("*_log.*")):
            return
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()
