"""Sensitivity studies: from one value of a hyperparameter to a run file."""

from collections.abc import Sequence
from pathlib import Path

from adamqlr.errors import UserError
from adamqlr.stages.train import train
from adamqlr.study.case import Case
from adamqlr.study.config import StudyConfig
from adamqlr.tuning.trials import read_best


def sweep(
    config: StudyConfig,
    name: str,
    point: str,
    seeds: Sequence[int],
    best: Path | None,
    output: Path,
) -> None:
    """Train some seeds of one value and write a run file.

    Args:
        config: The study.
        name: One of its sensitivity studies.
        point: One of the values, as files name it.
        seeds: The runs' seeds.
        best: The tuned hyperparameters, which the value comes before.
        output: The run file.

    Raises:
        UserError: A name, the data or the checkpoint cannot be used.
        Interrupted: A signal asked to stop; the checkpoint is written.
    """
    settings = config.sweep(name)
    if point not in settings.points:
        raise UserError(f"sensitivity study '{name}': no value {point}: there are {', '.join(settings.points)}")
    chosen = read_best(best, settings.suite, settings.dataset, settings.optimizer) if best else {}
    hyperparameters = {**chosen, **settings.hyperparameters(point)}
    labels = {"sweep": name, "sweep_parameter": settings.parameter, "sweep_point": point}
    case = Case(config, settings.suite, settings.dataset, settings.optimizer)
    train(case, seeds, hyperparameters, output, labels=labels)
