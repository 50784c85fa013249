"""Step costs: what a step of one optimizer on one dataset takes, by batch size."""

import logging
from pathlib import Path
from typing import Any

import torch

from adamqlr.errors import UserError
from adamqlr.jobs.device import device_name, keep_freed_memory, resolve_device, set_precision
from adamqlr.problems.problem import Problem, load_problem
from adamqlr.results.attributes import git_revision
from adamqlr.study.case import Case
from adamqlr.study.step_costs import StepCosts, write_step_costs
from adamqlr.training.optimizers import check_hyperparameters
from adamqlr.training.run import RunSpec
from adamqlr.training.step_time import measure_step_seconds

logger = logging.getLogger(__name__)


def measure_step_costs(case: Case, output: Path) -> None:
    """Measure what a step takes a run that has the device to itself, at every batch size of a search.

    Raises:
        UserError: There is nothing to tune, or a setting or the data cannot be used.
    """
    if not case.is_tuned:
        raise UserError(f"optimizer '{case.optimizer}': nothing to tune on '{case.dataset}'")
    device = resolve_device(case.study.device)
    keep_freed_memory()
    set_precision(case.study.precision)
    problem = load_problem(case.dataset, case.study, device)
    drawn, names = case.configurations()[0], tuple(case.settings.data_hyperparameters)
    costs: dict[tuple[int, ...], float] = {}
    measured: dict[tuple[int, ...], float] = {}
    for values in case.data_choices:
        hyperparameters = case.hyperparameters({**drawn, **dict(zip(names, values, strict=True))})
        check_hyperparameters(case, hyperparameters)
        same = (_rows(problem, hyperparameters), *values[1:])
        if same not in measured:
            spec = RunSpec(case.spec, hyperparameters, 0, case.study.seed, tuning=True)
            measured[same] = measure_step_seconds(problem, spec)
        costs[values] = measured[same]
        logger.info("%s: %.3g s a step", ", ".join(map("{} {}".format, names, values)), costs[values])
    about = {"device": device_name(device), "torch": torch.__version__, "git_revision": git_revision()}
    write_step_costs(StepCosts(names, costs, output), about)


def _rows(problem: Problem, hyperparameters: dict[str, Any]) -> int:
    if "length" in hyperparameters:
        problem = problem.with_length(hyperparameters["length"])
    return problem.rows_of_batch(hyperparameters["batch_size"])
