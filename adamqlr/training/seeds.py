"""Final training: a configuration's seeds one after another, in processes that share the device, or side by side."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from adamqlr.problems.problem import load_problem
from adamqlr.training.checkpoint import Checkpoint
from adamqlr.training.device import keep_freed_memory, set_precision
from adamqlr.training.history import History
from adamqlr.training.interrupts import StopRequest
from adamqlr.training.job import SeedsJob
from adamqlr.training.keeper import Keeper
from adamqlr.training.pack import RunPack
from adamqlr.training.progress import Progress
from adamqlr.training.run import Run, RunSpec
from adamqlr.training.schedule import RecordSchedule
from adamqlr.training.sharing import run_together
from adamqlr.training.step_time import measure_step_seconds

logger = logging.getLogger(__name__)


def train_seeds(job: SeedsJob, device: torch.device, checkpoint: Checkpoint, stop: StopRequest) -> list[History]:
    """Train every seed, taking up what the checkpoint holds.

    Raises:
        UserError: The data cannot be used, or the checkpoint is of another configuration.
        Interrupted: The job was asked to stop; its state is in the checkpoint.
    """
    saved = checkpoint.load() or {"finished": [], "current": None}
    finished = [History.from_state_dict(state) for state in saved["finished"]]
    set_precision(job.config.precision)
    problem = load_problem(job.dataset, job.config, device)
    training = job.config.training
    schedule = RecordSchedule(training.record_every, training.record_growth)
    progress = Progress(f"train {job.dataset}/{job.optimizer}")
    keeper = Keeper(checkpoint, stop, training.checkpoint_seconds, progress)
    current = saved["current"]
    for seed in job.seeds[len(finished) :]:
        run = Run(problem, RunSpec(job.optimizer, job.hyperparameters, seed, job.config.seed), schedule)
        if current is not None:
            run.load_state_dict(current)
            logger.info("seed %d goes on from step %d", seed, run.step)
            current = None
        _finish_run(run, job, finished, keeper)
        finished.append(run.history)
        _log_end(run.history)
    progress.close()
    return finished


def train_seeds_together(
    job: SeedsJob, device: torch.device, checkpoint: Checkpoint, stop: StopRequest, processes: int
) -> list[History]:
    """Train the seeds in several processes at once; every process has a checkpoint of its own.

    Raises:
        UserError: The data cannot be used, or a checkpoint is of another configuration.
        Interrupted: The job was asked to stop; its state is in the checkpoints.
    """
    run_together(partial(_train_part, job, device, checkpoint, processes), processes, stop)
    histories: dict[int, History] = {}
    for index in range(processes):
        saved = checkpoint.part(index, processes).load()
        assert saved is not None
        histories.update(zip(job.seeds[index::processes], map(History.from_state_dict, saved["finished"]), strict=True))
    return [histories[seed] for seed in job.seeds]


def _train_part(
    job: SeedsJob, device: torch.device, checkpoint: Checkpoint, processes: int, index: int, stop: StopRequest
) -> None:
    keep_freed_memory()
    part = checkpoint.part(index, processes)
    finished = train_seeds(replace(job, seeds=job.seeds[index::processes]), device, part, stop)
    part.save({"finished": [history.state_dict() for history in finished], "current": None})


def train_seeds_packed(
    job: SeedsJob, device: torch.device, checkpoint: Checkpoint, stop: StopRequest
) -> tuple[list[History], float]:
    """Train all seeds side by side; return what they recorded, and the seconds of a step that their time is made of.

    Raises:
        UserError: The data cannot be used, or the checkpoint is of another configuration.
        Interrupted: The job was asked to stop; its state is in the checkpoint.
    """
    saved = checkpoint.load()
    set_precision(job.config.precision)
    problem = load_problem(job.dataset, job.config, device)
    training = job.config.training
    specs = [RunSpec(job.optimizer, job.hyperparameters, seed, job.config.seed) for seed in job.seeds]
    step_seconds = measure_step_seconds(problem, specs[0]) if saved is None else saved["step_seconds"]
    pack = RunPack(problem, specs, RecordSchedule(training.record_every, training.record_growth), step_seconds)
    if saved is not None:
        pack.load_state_dict(saved["pack"])
        logger.info("%d seeds go on from step %d", len(specs), pack.step)
    progress = Progress(f"train {job.dataset}/{job.optimizer}")
    keeper = Keeper(checkpoint, stop, training.checkpoint_seconds, progress)
    limit = job.limit(pack.steps_per_epoch)
    assert limit.steps is not None
    steps = limit.steps

    def state() -> dict[str, Any]:
        return {"step_seconds": step_seconds, "pack": pack.state_dict()}

    pack.advance(
        limit, lambda: keeper.between_steps(state, lambda: (pack.step / steps, f"{len(specs)} seeds, step {pack.step}"))
    )
    progress.close()
    for history in pack.histories:
        _log_end(history)
    return pack.histories, step_seconds


def _finish_run(run: Run, job: SeedsJob, finished: Sequence[History], keeper: Keeper) -> None:
    limit = job.limit(run.steps_per_epoch)

    def state() -> dict[str, Any]:
        return {"finished": [history.state_dict() for history in finished], "current": run.state_dict()}

    def status() -> tuple[float, str]:
        done = len(finished) + run.fraction_of(limit)
        return done / len(job.seeds), f"seed {run.history.seed}, step {run.step}"

    run.advance(limit, lambda: keeper.between_steps(state, status))


def _log_end(history: History) -> None:
    logger.info(
        "seed %d %s after %d steps, %.2f s: training loss %.6g, test loss %.6g",
        history.seed,
        "diverged" if history.diverged else "finished",
        history.steps[-1],
        history.times[-1],
        history.metric("train_loss")[-1],
        history.metric("test_loss")[-1],
    )
