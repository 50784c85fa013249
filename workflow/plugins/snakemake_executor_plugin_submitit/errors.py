"""What a user should change when a job cannot be submitted."""

import errno
from pathlib import Path

from snakemake_executor_plugin_submitit.reasons import find_refusal

_FILE_ADVICE = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room: your quota there is used up",
    errno.EROFS: "choose a --submitit-logdir elsewhere, or have the file system mounted anew",
    errno.EACCES: "choose a --submitit-logdir that you may write to",
}


def explain_refusal(error: str, asked: str) -> str:
    """Return one line: what Slurm said, what was asked for, and what to change.

    Args:
        error: What ``sbatch`` printed.
        asked: What the job asked for, in words.
    """
    lines = [line.removeprefix("sbatch:").strip().removeprefix("error:").strip() for line in error.splitlines()]
    said = "; ".join(dict.fromkeys(line for line in lines if line)) or "no reason given"
    reason = find_refusal(error)
    return f"Slurm refused a job ({asked}): {said}" + (
        f". To mend it, {reason.advice}." if reason and reason.advice else ""
    )


def explain_file_error(error: OSError, folder: Path) -> str:
    """Return one line: which file the head process could not write, why, and what to change."""
    advice = _FILE_ADVICE.get(error.errno or 0, "choose another --submitit-logdir, or see to the file system")
    where = error.filename or folder
    return f"the head process cannot write {where}: {error.strerror or error}. To go on, {advice}, and start again."
