"""Canceling jobs, also when Slurm does not answer just then, and waiting for their end."""

import math
import time
from collections.abc import Callable, Collection, Mapping
from logging import Logger
from pathlib import Path

from snakemake_executor_plugin_submitit.clusters import Cluster, JobState

# Longer than a controller is usually away, and short enough for whoever waits for a batch script to end.
_PATIENCE_SECONDS = 1800.0
# Longer than what was canceled commonly takes to write a checkpoint.
_SILENT_SECONDS = 60.0


def cancel_until_done(
    cluster: Cluster, jobs: Mapping[str, Path], settle: Callable[[], bool], logger: Logger, pause_seconds: float
) -> set[str]:
    """Cancel jobs, trying again until the cluster answers.

    Args:
        cluster: Where they are.
        jobs: Their folders.
        settle: Undoes submissions whose answer was lost; returns whether that could be done.
        logger: Where messages go.
        pause_seconds: Time between two tries.

    Returns:
        The ids of those that may still run.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    left, settled = cluster.cancel(jobs), settle()
    if not left and settled:
        return set()
    many = f"{len(left)} jobs could not be canceled yet ({_arrays(left)})" if left else ""
    unknown = "" if settled else "nobody knows whether it took what was submitted last"
    logger.warning(
        f"{cluster.name} does not answer: {' and '.join(filter(None, (many, unknown)))}. "
        "Waiting until it does; press Ctrl-C again to leave it at that."
    )
    try:
        while (left or not settled) and time.monotonic() < deadline:
            time.sleep(pause_seconds)
            left, settled = cluster.cancel({job_id: jobs[job_id] for job_id in left}), settle()
    except KeyboardInterrupt:
        pass
    if left:
        logger.warning(
            f"{cluster.name}: {len(left)} jobs may still run. To end them, `scancel {_arrays(left)}`; otherwise the "
            "next run takes them up."
        )
    if not settled:
        logger.warning(
            f"{cluster.name}: what was submitted last may run, and no later run knows of it. Once the cluster answers, "
            "`squeue --me` shows it, and `scancel` ends it."
        )
    if settled and not left:
        logger.info(f"{cluster.name} answers again: everything is canceled.")
    return set(left)


def _arrays(jobs: Collection[str]) -> str:
    return " ".join(sorted({job_id.split("_")[0] for job_id in jobs}, key=int))


def wait_until_ended(cluster: Cluster, jobs: Mapping[str, Path], logger: Logger, pause_seconds: float) -> None:
    """Wait until canceled jobs have ended, however long, as they may be writing checkpoints.

    Args:
        cluster: Where they are.
        jobs: Their folders.
        logger: Where a message goes when that takes long.
        pause_seconds: Time between two looks.
    """
    silent_until = time.monotonic() + _SILENT_SECONDS
    while (states := cluster.states(jobs)) is None or any(state.alive for state in states.values()):
        if time.monotonic() >= silent_until:
            silent_until = math.inf
            logger.warning(f"{cluster.name}: {_what_is_waited_for(states)}")
        time.sleep(pause_seconds)


def _what_is_waited_for(states: Mapping[str, JobState] | None) -> str:
    if states is None:
        return "the queue cannot be read, and canceled jobs of an earlier run may still be in it; waiting for it."
    alive = {job_id: state for job_id, state in states.items() if state.alive}
    nodes = sorted({state.node for state in alive.values()} - {""})
    each = ", ".join(f"{job_id} ({state.name} on {state.node or 'no node'})" for job_id, state in alive.items())
    cure = (
        " An administrator frees a node that does not let go of one: "
        f"`scontrol update nodename={','.join(nodes)} state=down reason=stuck`, then `state=resume`."
    )
    return (
        "canceled jobs of an earlier run have not ended, and may still write to the files of those that replace them: "
        f"{each}. Waiting for them.{cure if nodes else ''}"
    )
