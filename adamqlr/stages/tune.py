"""Tuning: from a search space to a shard's trials."""

import logging
from functools import partial
from pathlib import Path

import torch

from adamqlr.errors import UserError
from adamqlr.files import check_place
from adamqlr.jobs.checkpoint import Checkpoint
from adamqlr.jobs.device import device_name, keep_freed_memory, resolve_device
from adamqlr.jobs.interrupts import StopRequest, stop_on_signals
from adamqlr.jobs.processes import process_count, run_together
from adamqlr.logs import device_line
from adamqlr.problems.problem import load_problem
from adamqlr.results.attributes import file_attributes
from adamqlr.study.case import Case
from adamqlr.study.names import JOURNAL
from adamqlr.study.step_costs import StepCosts, read_step_costs
from adamqlr.tuning.shard import Shard, search_identity
from adamqlr.tuning.trials import summary, trials_dataset, write_best, write_trials

logger = logging.getLogger(__name__)


def tune(
    case: Case,
    shard: tuple[int, int],
    output: Path,
    processes: int | None = None,
    costs_path: Path | None = None,
    best: Path | None = None,
) -> None:
    """Train one shard of a search and write its trials.

    Args:
        case: What is tuned.
        shard: k and K: this is shard k of K.
        output: The file of trials; the checkpoint and the journal of all shards lie beside it.
        processes: How many processes share the device; the dataset's ``runs_per_gpu`` on a GPU, and 1 elsewhere, if
            not given, and 1 where configurations are packed.
        costs_path: The file of step costs, where rungs count steps.
        best: Where the best hyperparameters go, if the shard is the whole search.

    Raises:
        UserError: A setting, the data or the checkpoint cannot be used, there is nothing to tune, or to choose from.
        Interrupted: A signal asked to stop; the checkpoint is written.
    """
    if not case.is_tuned:
        raise UserError(f"optimizer '{case.optimizer}': nothing to tune on '{case.dataset}'")
    if best and shard[1] > 1:
        raise UserError(f"--best: this is one of {shard[1]} shards; `adamqlr select` chooses from all of them")
    costs = _read_costs(case, costs_path)
    check_place(output)
    with stop_on_signals() as stop:
        _tune(case, shard, output, processes, costs, best, stop)


def _tune(
    case: Case,
    shard: tuple[int, int],
    output: Path,
    processes: int | None,
    costs: StepCosts | None,
    best: Path | None,
    stop: StopRequest,
) -> None:
    index, count = shard
    device = resolve_device(case.study.device)
    logger.info(device_line(case, device.type, device_name(device)))
    keep_freed_memory()
    journal = output.parent / JOURNAL
    split = case.split
    problem = load_problem(case.dataset, case.study, device)
    whole = Shard(case, index, count, journal, problem, processes is None, costs)
    is_packed = whole.is_packed
    search = search_identity(case, costs)
    identity = f"{search}-{index}-{count}" + ("-packed" if is_packed else "")
    checkpoint = Checkpoint(output, identity, split)
    owned = len(range(index, case.study.tuning.trials, count))
    sharing = 1 if is_packed else process_count(processes, device, case.settings.runs_per_gpu, owned)
    if sharing == 1:
        whole.run(checkpoint, stop)
    else:
        run_together(partial(_tune_part, case, shard, sharing, journal, device, checkpoint, costs), sharing, stop)
    unit = case.study.tuning.unit
    attrs = _attributes(case, whole, device, sharing, search, split)
    trials = trials_dataset(whole.results(), case.rungs, unit, attrs)
    write_trials(trials, output)
    logger.info(summary(trials))
    if best:
        write_best(trials, best)
    # The journal goes last: a job killed in between would go on with the checkpoint of a trial that no journal knows.
    checkpoint.remove()
    if best:
        journal.unlink(missing_ok=True)


def _attributes(
    case: Case, shard: Shard, device: torch.device, sharing: int, identity: str, split: str
) -> dict[str, str | int | float]:
    return file_attributes(
        case,
        seeds=[],
        hyperparameters={},
        device=device_name(device),
        split=split,
        runs_sharing_device=sharing,
        time_source=shard.time_source,
        packed_trials=shard.largest_pack,
        objective=case.objective,
        identity=identity,
        trials=case.study.tuning.trials,
    )


def _tune_part(
    case: Case,
    shard: tuple[int, int],
    processes: int,
    journal: Path,
    device: torch.device,
    checkpoint: Checkpoint,
    costs: StepCosts | None,
    part: int,
    stop: StopRequest,
) -> None:
    """Train every ``processes``-th configuration of a shard: they are a shard of the search themselves."""
    keep_freed_memory()
    index, count = shard
    problem = load_problem(case.dataset, case.study, device)
    shard_of_part = Shard(case, index + count * part, count * processes, journal, problem, costs=costs)
    shard_of_part.run(checkpoint.part(part, processes), stop)


def _read_costs(case: Case, path: Path | None) -> StepCosts | None:
    if (case.study.tuning.unit == "steps") != (path is not None):
        cure = "needs" if path is None else "takes no"
        raise UserError(f"tuning.unit: {case.study.tuning.unit} {cure} --step-costs, a file of `adamqlr step-costs`")
    if path is None:
        return None
    costs = read_step_costs(path, list(case.settings.data_hyperparameters))
    for configuration in case.configurations():
        # What is missing is told before hours of training.
        costs.of(case.hyperparameters(configuration))
    return costs
