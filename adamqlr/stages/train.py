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
from adamqlr.training.packing import process_count
from adamqlr.training.seeds import train_seeds, train_seeds_together


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
        processes: How many processes share the device; the dataset's ``runs_per_gpu`` on a GPU, and 1 elsewhere, if
            not given.
        labels: Further attributes of the file.

    Raises:
        UserError: A setting, the data or the checkpoint cannot be used.
        Interrupted: A signal asked to stop; the checkpoint is written.
    """
    hyperparameters = resolve_hyperparameters(config, dataset, optimizer, chosen)
    job = SeedsJob(config, suite, dataset, optimizer, hyperparameters, seeds)
    checkpoint = Checkpoint(output, job.identity)
    device = resolve_device(config.device)
    keep_freed_memory()
    count = process_count(processes, device, config.dataset(dataset).runs_per_gpu, len(seeds))
    with stop_on_signals() as stop:
        if count == 1:
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
        **(labels or {}),
    )
    write_runs(output, histories, attrs)
    for kept in (checkpoint, *(checkpoint.part(index, count) for index in range(count))):
        kept.remove()
