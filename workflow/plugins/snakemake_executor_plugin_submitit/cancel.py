"""Canceling jobs, also when Slurm does not answer just then."""

import time
from collections.abc import Callable, Mapping
from logging import Logger
from pathlib import Path

from snakemake_executor_plugin_submitit.clusters import Cluster

# Longer than a controller is usually away, and short enough for whoever waits for a batch script to end.
_PATIENCE_SECONDS = 1800.0


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
    arrays = " ".join(sorted({job_id.split("_")[0] for job_id in left}, key=int))
    logger.warning(
        f"{cluster.name} does not answer: {len(left)} jobs could not be canceled yet ({arrays}). "
        "Waiting until it does; press Ctrl-C again to leave them."
    )
    try:
        while (left or not settled) and time.monotonic() < deadline:
            time.sleep(pause_seconds)
            left, settled = cluster.cancel({job_id: jobs[job_id] for job_id in left}), settle()
    except KeyboardInterrupt:
        pass
    if left:
        logger.warning(
            f"{cluster.name}: {len(left)} jobs may still run. To end them, `scancel {arrays}`; otherwise the next run "
            "takes them up."
        )
    else:
        logger.info(f"{cluster.name} answers again: everything is canceled.")
    return set(left)
