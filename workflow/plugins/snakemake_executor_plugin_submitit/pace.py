"""How often Snakemake's scheduler looks at what is ready."""

import sys
from typing import Any

# Snakemake's default, which no option switches off.
_DEFAULT_JOBS, _DEFAULT_SECONDS = 100, 1


def lift_default_rate_limit(scheduler: Any) -> None:
    """Have the scheduler hand over as many jobs as there is room for.

    With a limit on jobs a second, Snakemake looks at all ready jobs once more every second for each job that has ended,
    for as long as any is ready: with thousands, that takes a whole core of the login node, and with the hundreds of a
    study on the machine at hand a quarter of one. Arrays take care of the pace of submissions. A limit that a user has
    chosen stays.
    """
    limiter = getattr(scheduler, "job_rate_limiter", None)
    if limiter is not None and (limiter.max_jobs, limiter.timespan) == (_DEFAULT_JOBS, _DEFAULT_SECONDS):
        scheduler.job_rate_limiter = None
        scheduler.resources["_job_count"] = sys.maxsize
