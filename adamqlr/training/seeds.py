"""Final training: a configuration's seeds one after another, in processes that share the device, or side by side."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch

from adamqlr.jobs.between_steps import BetweenSteps
from adamqlr.jobs.checkpoint import Checkpoint
from adamqlr.jobs.device import device_name, keep_freed_memory, set_precision
from adamqlr.jobs.interrupts import StopRequest
from adamqlr.jobs.processes import run_together
from adamqlr.jobs.progress import Progress
from adamqlr.problems.examples import steps_per_epoch
from adamqlr.problems.problem import Problem, load_problem
from adamqlr.study.case import Case
from adamqlr.training.history import History
from adamqlr.training.run import Run, RunSpec
from adamqlr.training.schedule import RecordSchedule
from adamqlr.training.side_by_side import pack_size
from adamqlr.training.step_time import measure_step_seconds

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeedsJob:
    """Several seeds of one configuration.

    Attributes:
        case: What is trained.
        hyperparameters: Keyword arguments of the optimizer, and the data's.
        seeds: The runs' seeds.
    """

    case: Case
    hyperparameters: Mapping[str, Any]
    seeds: Sequence[int]

    @property
    def runs(self) -> list[RunSpec]:
        """What decides each run's numbers."""
        spec, study_seed = self.case.spec, self.case.study.seed
        return [RunSpec(spec, self.hyperparameters, seed, study_seed) for seed in self.seeds]


class Finished(NamedTuple):
    """What came of a job.

    Attributes:
        histories: What the runs recorded, in the order of the seeds.
        step_seconds: The seconds of a step that the time of runs side by side is made of; None where it was measured.
        devices: Where they computed, in order: a job that is taken up again may be elsewhere.
    """

    histories: list[History]
    step_seconds: float | None
    devices: list[str]


def seeds_side_by_side(job: SeedsJob, problem: Problem) -> int:
    """Return how many of a job's seeds are best trained side by side."""
    batch_size, count = job.hyperparameters["batch_size"], len(job.seeds)
    steps = job.case.limit(steps_per_epoch(len(problem.train), batch_size)).steps or 0
    most = pack_size(job.case, problem, batch_size, count, steps * count)
    # In groups of like size.
    return -(-count // -(-count // most)) if most else 1


def train_seeds(
    job: SeedsJob, problem: Problem, checkpoint: Checkpoint, stop: StopRequest, side_by_side: int = 1
) -> Finished:
    """Train every seed, so many side by side, taking up what the checkpoint holds.

    Returns:
        The histories of all seeds, those in the checkpoint included.

    Raises:
        UserError: The checkpoint cannot be read.
        Interrupted: The job was asked to stop; its state is in the checkpoint.
    """
    saved = _in_form(checkpoint.load() or {})
    histories = [History.from_state_dict(state) for state in saved["finished"]]
    set_precision(job.case.study.precision)
    training = job.case.study.training
    schedule = RecordSchedule(training.record_every, training.record_growth)
    progress = Progress(f"train {job.case}")
    between_steps = BetweenSteps(checkpoint, stop, training.checkpoint_seconds, progress)
    step_seconds, current = saved["step_seconds"], saved["current"]
    devices = _distinct([*saved["devices"], device_name(problem.device)])
    if side_by_side > 1 and step_seconds is None:
        step_seconds = measure_step_seconds(problem, job.runs[0])
    while len(histories) < len(job.runs):
        # What was saved goes on as it began, whatever is now best trained side by side.
        count = len(current["histories"]) if current is not None and side_by_side > 1 else side_by_side
        specs = job.runs[len(histories) :][:count]
        run = Run(problem, specs if side_by_side > 1 else specs[0], schedule, step_seconds=step_seconds)
        if current is not None:
            run.load_state_dict(current)
            logger.info("%s on from step %d", _goes(run.histories), run.step)
            current = None
        _finish_run(run, job, histories, devices, between_steps)
        histories += run.histories
        for history in run.histories:
            _log_end(history)
    progress.close()
    return Finished(histories, step_seconds, devices)


def _in_form(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint in today's form: version 0.1 had another one for seeds side by side."""
    if "pack" in saved:
        saved = {"current": saved["pack"], "step_seconds": saved["step_seconds"]}
    return {"finished": [], "current": None, "step_seconds": None, "devices": [], **saved}


def _distinct(devices: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(devices))


def train_seeds_together(
    job: SeedsJob, device: torch.device, checkpoint: Checkpoint, stop: StopRequest, processes: int
) -> Finished:
    """Train the seeds in several processes at once; every process has a checkpoint of its own.

    Returns:
        The histories of all seeds, in their order.

    Raises:
        UserError: The data cannot be used, or a checkpoint cannot be read.
        Interrupted: The job was asked to stop; its state is in the checkpoints.
    """
    run_together(partial(_train_part, job, device, checkpoint, processes), processes, stop)
    histories: dict[int, History] = {}
    devices: list[str] = []
    for index in range(processes):
        saved = checkpoint.part(index, processes).load()
        assert saved is not None
        histories.update(zip(job.seeds[index::processes], map(History.from_state_dict, saved["finished"]), strict=True))
        devices += saved["devices"]
    return Finished([histories[seed] for seed in job.seeds], None, _distinct(devices))


def _train_part(
    job: SeedsJob, device: torch.device, checkpoint: Checkpoint, processes: int, index: int, stop: StopRequest
) -> None:
    keep_freed_memory()
    part = checkpoint.part(index, processes)
    problem = load_problem(job.case.dataset, job.case.study, device)
    finished = train_seeds(replace(job, seeds=job.seeds[index::processes]), problem, part, stop)
    done = [history.state_dict() for history in finished.histories]
    part.save({"finished": done, "current": None, "devices": finished.devices})


def _finish_run(
    run: Run, job: SeedsJob, finished: Sequence[History], devices: list[str], between_steps: BetweenSteps
) -> None:
    limit = job.case.limit(run.steps_per_epoch)

    def state() -> dict[str, Any]:
        return {
            "finished": [history.state_dict() for history in finished],
            "current": run.state_dict(),
            "step_seconds": run.step_seconds,
            "devices": devices,
        }

    def status() -> tuple[float, str]:
        done = len(finished) + len(run.histories) * run.fraction_of(limit)
        return done / len(job.seeds), f"{_names(run.histories)}, step {run.step}"

    run.advance(limit, lambda: between_steps(state, status, run.off_clock))


def _names(histories: Sequence[History]) -> str:
    return f"seed {histories[0].seed}" if len(histories) == 1 else f"{len(histories)} seeds"


def _goes(histories: Sequence[History]) -> str:
    return f"{_names(histories)} {'goes' if len(histories) == 1 else 'go'}"


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
