"""Final training: from hyperparameters to a run file."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adamqlr.files import check_place
from adamqlr.jobs.checkpoint import Checkpoint
from adamqlr.jobs.device import device_name, keep_freed_memory, resolve_device
from adamqlr.jobs.interrupts import StopRequest, stop_on_signals
from adamqlr.jobs.processes import process_count
from adamqlr.logs import device_line
from adamqlr.problems.problem import load_problem
from adamqlr.results.attributes import file_attributes
from adamqlr.results.runs import TRAINING, write_runs
from adamqlr.study.case import Case
from adamqlr.training.optimizers import check_hyperparameters
from adamqlr.training.seeds import SeedsJob, seeds_side_by_side, train_seeds, train_seeds_together

logger = logging.getLogger(__name__)


def train(
    case: Case,
    seeds: Sequence[int],
    chosen: Mapping[str, Any],
    output: Path,
    processes: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Train some seeds and write a run file.

    Args:
        case: What is trained.
        seeds: The runs' seeds.
        chosen: Hyperparameters on top of the catalog's and configured ones.
        output: The run file; a checkpoint lies beside it until it is in place.
        processes: How many processes share the device; if not given, one where the seeds are packed or on a CPU, and
            the dataset's ``runs_per_gpu`` on a GPU.
        labels: Further attributes of the file.

    Raises:
        UserError: A setting, the data or the checkpoint cannot be used, or the output has no place.
        Interrupted: A signal asked to stop; the checkpoint is written.
    """
    check_place(output)
    hyperparameters = case.hyperparameters(chosen)
    check_hyperparameters(case, hyperparameters)
    with stop_on_signals() as stop:
        _train(SeedsJob(case, hyperparameters, seeds), output, processes, labels or {}, stop)


def _train(job: SeedsJob, output: Path, processes: int | None, labels: Mapping[str, str], stop: StopRequest) -> None:
    case = job.case
    device = resolve_device(case.study.device)
    logger.info(device_line(case, device.type, device_name(device)))
    keep_freed_memory()
    # Before it trains: what changes meanwhile is not what it trained with.
    split = case.split
    problem = load_problem(case.dataset, case.study, device)
    side_by_side = 1 if processes is not None else seeds_side_by_side(job, problem)
    identity = case.training_fingerprint(job.hyperparameters, job.seeds)
    of_any_seeds = case.training_fingerprint(job.hyperparameters, [])
    checkpoint = Checkpoint(output, f"{identity}-packed" if side_by_side > 1 else identity, split)
    count = 1 if side_by_side > 1 else process_count(processes, device, case.settings.runs_per_gpu, len(job.seeds))
    if count == 1:
        finished = train_seeds(job, problem, checkpoint, stop, side_by_side)
    else:
        finished = train_seeds_together(job, device, checkpoint, stop, count)
    timing: dict[str, str | float] = {"time_source": "measured", "packed_seeds": 1}
    if finished.step_seconds is not None:
        timing = {
            "time_source": "steps taken times step_seconds, measured on a single run",
            "step_seconds": finished.step_seconds,
            "packed_seeds": side_by_side,
        }
    attrs = file_attributes(
        case,
        seeds=list(job.seeds),
        hyperparameters=job.hyperparameters,
        device=", ".join(finished.devices),
        split=split,
        runs_sharing_device=count,
        **{TRAINING: of_any_seeds},
        **timing,
        **labels,
    )
    write_runs(output, finished.histories, attrs)
    checkpoint.remove()
