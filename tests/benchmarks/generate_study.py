"""Write a study of full size with made-up numbers, to measure aggregation and figures on.

    python tests/benchmarks/generate_study.py workflow/config/paper.yaml results/paper

It fills `cubes/` and `tuning/` and joins `study.nc`. Nothing in it is measured: every cube is labeled as generated.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from adamqlr.results.attributes import file_attributes
from adamqlr.results.cube import build_cube, write_cube
from adamqlr.results.join import write_study
from adamqlr.results.runs import runs_dataset
from adamqlr.study.case import Case, cases_of
from adamqlr.study.config import StudyConfig, load_config
from adamqlr.study.names import SENSITIVITY
from adamqlr.training.history import History
from adamqlr.training.metrics import METRICS
from adamqlr.training.schedule import RecordSchedule
from adamqlr.tuning.trials import Trial, trials_dataset, write_trials

# The steps of 72 epochs of 45,000 rows in batches of 128.
STEPS = 25_344
DEVICE = "none: these numbers are generated"


def generated_history(seed: int, steps: list[int], accuracy: bool, generator: np.random.Generator) -> History:
    """Make up a history: noise around a power law."""
    made = History(seed)
    loss = (1 + np.array(steps)) ** -0.3 * np.exp(0.1 * generator.normal(size=len(steps)))
    values = np.repeat(loss[:, None], len(METRICS), axis=1)
    names = list(METRICS)
    for name in ("train_accuracy", "validation_accuracy", "test_accuracy"):
        values[:, names.index(name)] = 1 - loss / 2 if accuracy else np.nan
    made.steps, made.values, made.evaluation_seconds = steps, list(values), 0.05
    made.times = np.cumsum(np.diff(steps, prepend=0) * 0.01 * generator.uniform(0.9, 1.1, len(steps))).tolist()
    return made


def recorded_steps(config: StudyConfig) -> list[int]:
    """Return the steps that a run of full length records."""
    schedule = RecordSchedule(config.training.record_every, config.training.record_growth)
    steps = [0]
    while steps[-1] < STEPS:
        steps.append(schedule.next_after(steps[-1]))
    return steps


def attributes(case: Case, **extra: str) -> dict[str, Any]:
    """Return a file's attributes."""
    return file_attributes(
        case,
        seeds=[],
        hyperparameters=dict.fromkeys(("batch_size", *case.space), 1),
        device=DEVICE,
        runs_sharing_device=1,
        **extra,
    )


def generated_cube(config: StudyConfig, attrs: dict[str, object], seeds: int, steps: list[int]) -> xr.Dataset:
    """Make up one cube."""
    generator = np.random.default_rng(len(str(attrs)))
    accuracy = attrs["loss"] == "cross_entropy"
    histories = [generated_history(seed, steps, accuracy, generator) for seed in range(seeds)]
    if attrs["dataset"] == "rosenbrock":
        for history in histories:
            history.parameters = [[0.0, 0.0]] * len(steps)
    return build_cube([runs_dataset(histories, attrs)], config.statistics.grid_points)


def generated_trials(config: StudyConfig, attrs: dict[str, object]) -> xr.Dataset:
    """Make up one search."""
    values = np.exp(np.random.default_rng(0).normal(size=(config.tuning.trials, 6)))
    trials = [Trial(n, {"lr": 0.1}, row[: 1 + n % 6].tolist(), "pruned", 1.0) for n, row in enumerate(values)]
    named = {**attrs, "objective": "validation_loss", "identity": "generated", "trials": len(trials)}
    return trials_dataset(trials, [1, 4, 16, 64, 256, 900], "seconds", named)


def main(config_path: str, folder: str) -> None:
    """Write the study's parts and join them."""
    config, root = load_config(Path(config_path)), Path(folder)
    steps, parts = recorded_steps(config), []
    for suite in config.suites:
        for case in cases_of(config, suite):
            attrs = attributes(case)
            parts.append(root / "cubes" / f"{case.path}.nc")
            write_cube(parts[-1], generated_cube(config, attrs, len(case.seeds), steps))
            if case.is_tuned:
                parts.append(root / "tuning" / case.path / "trials.nc")
                write_trials(generated_trials(config, attrs), parts[-1])
    for name, sweep in config.sensitivity.items():
        for point in sweep.points:
            labels = {"sweep": name, "sweep_parameter": sweep.parameter, "sweep_point": point}
            attrs = attributes(Case(config, sweep.suite, sweep.dataset, sweep.optimizer), **labels)
            parts.append(root / "cubes" / SENSITIVITY / name / f"{point}.nc")
            write_cube(parts[-1], generated_cube(config, attrs, config.training.seeds, steps))
    write_study(parts, root / "study.nc")


if __name__ == "__main__":
    main(*sys.argv[1:])
