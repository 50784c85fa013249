"""Selection: from shards to the trials of a search and its best hyperparameters."""

import logging
from collections.abc import Sequence
from pathlib import Path

from adamqlr.study.names import JOURNAL
from adamqlr.tuning.trials import merge_shards, summary, write_best, write_trials

logger = logging.getLogger(__name__)


def select(shards: Sequence[Path], output: Path, best: Path) -> None:
    """Join a search's shards into one file of trials and write the best hyperparameters.

    Raises:
        UserError: A file is of another search or none, trials are missing.
    """
    trials = merge_shards(shards)
    write_trials(trials, output)
    write_best(trials, best)
    logger.info(summary(trials))
    for folder in {shard.parent for shard in shards}:
        (folder / JOURNAL).unlink(missing_ok=True)
