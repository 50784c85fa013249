"""Tuning: from a search space to a shard's trials."""

from pathlib import Path

from adamqlr.config import StudyConfig
from adamqlr.errors import UserError
from adamqlr.results.provenance import provenance
from adamqlr.training.checkpoint import Checkpoint
from adamqlr.training.device import device_name, keep_freed_memory, resolve_device
from adamqlr.training.interrupts import stop_on_signals
from adamqlr.tuning.search import JOURNAL, Search
from adamqlr.tuning.shard import Shard
from adamqlr.tuning.trials import trials_dataset, write_trials


def tune(config: StudyConfig, suite: str, dataset: str, optimizer: str, shard: tuple[int, int], output: Path) -> None:
    """Train one shard of a search and write its trials.

    Args:
        config: The study.
        suite: Decides objective and budget.
        dataset: What is optimized.
        optimizer: A registered name.
        shard: k and K: this is shard k of K.
        output: The file of trials; the checkpoint and the journal of all shards lie beside it.

    Raises:
        UserError: A setting, the data or the checkpoint cannot be used, or there is nothing to tune.
        Interrupted: A signal asked to stop; the checkpoint is written.
    """
    if not config.is_tuned(optimizer, dataset):
        raise UserError(f"optimizer '{optimizer}': nothing to tune on '{dataset}'")
    search = Search(config, suite, dataset, optimizer)
    index, count = shard
    checkpoint = Checkpoint(output, f"{search.identity}-{index}-{count}")
    device = resolve_device(config.device)
    keep_freed_memory()
    with stop_on_signals() as stop:
        trials = Shard(search, index, count, output.parent / JOURNAL, device).run(checkpoint, stop)
    attrs = provenance(
        config,
        suite=suite,
        dataset=dataset,
        optimizer=optimizer,
        seeds=[],
        hyperparameters={},
        device=device_name(device),
        objective=search.objective,
        identity=search.identity,
        trials=config.tuning.trials,
    )
    write_trials(trials_dataset(trials, search.resources, config.tuning.unit, attrs), output)
    checkpoint.remove()
