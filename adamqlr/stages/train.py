"""Final training: from hyperparameters to a run file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adamqlr.config import StudyConfig
from adamqlr.results.provenance import provenance
from adamqlr.results.runs import write_runs
from adamqlr.training.checkpoint import Checkpoint
from adamqlr.training.device import device_name, keep_freed_memory, resolve_device
from adamqlr.training.hyperparameters import resolve_hyperparameters
from adamqlr.training.interrupts import stop_on_signals
from adamqlr.training.job import SeedsJob
from adamqlr.training.seeds import train_seeds, train_seeds_packed, train_seeds_together
from adamqlr.training.sharing import process_count


def train(
    config: StudyConfig,
    suite: str,
    dataset: str,
    optimizer: str,
    seeds: Sequence[int],
    chosen: Mapping[str, Any],
    output: Path,
    processes: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Train some seeds and write a run file.

    Args:
        config: The study.
        suite: What bounds a run.
        dataset: What is optimized.
        optimizer: A registered name.
        seeds: The runs' seeds.
        chosen: Hyperparameters on top of the registered and configured ones.
        output: The run file; a checkpoint lies beside it until it is in place.
        processes: How many processes share the device; if not given, one where the seeds are packed or on a CPU, and
            the dataset's ``runs_per_gpu`` on a GPU.
        labels: Further attributes of the file.

    Raises:
        UserError: A setting, the data or the checkpoint cannot be used.
        Interrupted: A signal asked to stop; the checkpoint is written.
    """
    hyperparameters = resolve_hyperparameters(config, dataset, optimizer, chosen)
    job = SeedsJob(config, suite, dataset, optimizer, hyperparameters, seeds)
    device = resolve_device(config.device)
    is_packed = processes is None and job.is_packed(device.type)
    checkpoint = Checkpoint(output, f"{job.identity}-packed" if is_packed else job.identity)
    keep_freed_memory()
    count = 1 if is_packed else process_count(processes, device, config.dataset(dataset).runs_per_gpu, len(seeds))
    timing: dict[str, str | float] = {"time_source": "measured", "packed_seeds": 1}
    with stop_on_signals() as stop:
        if is_packed:
            histories, step_seconds = train_seeds_packed(job, device, checkpoint, stop)
            timing = {
                "time_source": "steps taken times step_seconds, measured on a single run",
                "step_seconds": step_seconds,
                "packed_seeds": len(seeds),
            }
        elif count == 1:
            histories = train_seeds(job, device, checkpoint, stop)
        else:
            histories = train_seeds_together(job, device, checkpoint, stop, count)
    attrs = provenance(
        config,
        suite=suite,
        dataset=dataset,
        optimizer=optimizer,
        seeds=list(seeds),
        hyperparameters=hyperparameters,
        device=device_name(device),
        runs_sharing_device=count,
        **timing,
        **(labels or {}),
    )
    write_runs(output, histories, attrs)
    for kept in (checkpoint, *(checkpoint.part(index, count) for index in range(count))):
        kept.remove()
