"""Tuning: from a search space to a shard's trials."""

import logging
from functools import partial
from pathlib import Path

import torch

from adamqlr.config import StudyConfig
from adamqlr.errors import UserError
from adamqlr.results.provenance import provenance
from adamqlr.training.checkpoint import Checkpoint
from adamqlr.training.device import device_name, keep_freed_memory, resolve_device
from adamqlr.training.interrupts import StopRequest, stop_on_signals
from adamqlr.training.sharing import process_count, run_together
from adamqlr.tuning.packed_shard import PackedShard
from adamqlr.tuning.search import JOURNAL, Search
from adamqlr.tuning.shard import Shard
from adamqlr.tuning.trials import summary, trials_dataset, write_trials

logger = logging.getLogger(__name__)


def tune(
    config: StudyConfig,
    suite: str,
    dataset: str,
    optimizer: str,
    shard: tuple[int, int],
    output: Path,
    processes: int | None = None,
) -> None:
    """Train one shard of a search and write its trials.

    Args:
        config: The study.
        suite: Decides objective and budget.
        dataset: What is optimized.
        optimizer: A registered name.
        shard: k and K: this is shard k of K.
        output: The file of trials; the checkpoint and the journal of all shards lie beside it.
        processes: How many processes share the device; the dataset's ``runs_per_gpu`` on a GPU, and 1 elsewhere, if
            not given, and 1 where configurations are packed.

    Raises:
        UserError: A setting, the data or the checkpoint cannot be used, or there is nothing to tune.
        Interrupted: A signal asked to stop; the checkpoint is written.
    """
    if not config.is_tuned(optimizer, dataset):
        raise UserError(f"optimizer '{optimizer}': nothing to tune on '{dataset}'")
    search = Search(config, suite, dataset, optimizer)
    index, count = shard
    device = resolve_device(config.device)
    is_packed = processes is None and search.is_packed(device.type)
    identity = f"{search.identity}-{index}-{count}"
    checkpoint = Checkpoint(output, f"{identity}-packed" if is_packed else identity)
    keep_freed_memory()
    journal = output.parent / JOURNAL
    owned = len(range(index, config.tuning.trials, count))
    sharing = 1 if is_packed else process_count(processes, device, config.dataset(dataset).runs_per_gpu, owned)
    whole = (PackedShard if is_packed else Shard)(search, index, count, journal, device)
    with stop_on_signals() as stop:
        if sharing == 1:
            whole.run(checkpoint, stop)
        else:
            run_together(partial(_tune_part, search, shard, sharing, journal, device, checkpoint), sharing, stop)
    attrs = provenance(
        config,
        suite=suite,
        dataset=dataset,
        optimizer=optimizer,
        seeds=[],
        hyperparameters={},
        device=device_name(device),
        runs_sharing_device=sharing,
        time_source=whole.time_source,
        packed_trials=whole.largest_pack,
        objective=search.objective,
        identity=search.identity,
        trials=config.tuning.trials,
    )
    trials = trials_dataset(whole.results(), search.resources, config.tuning.unit, attrs)
    write_trials(trials, output)
    logger.info(summary(trials))
    for kept in (checkpoint, *(checkpoint.part(part, sharing) for part in range(sharing))):
        kept.remove()


def _tune_part(
    search: Search,
    shard: tuple[int, int],
    processes: int,
    journal: Path,
    device: torch.device,
    checkpoint: Checkpoint,
    part: int,
    stop: StopRequest,
) -> None:
    """Train every ``processes``-th configuration of a shard: they are a shard of the search themselves."""
    keep_freed_memory()
    index, count = shard
    Shard(search, index + count * part, count * processes, journal, device).run(checkpoint.part(part, processes), stop)
