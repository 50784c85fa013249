"""Where the files of a study lie, below ``results/<study>``."""

from collections.abc import Sequence

from adamqlr.study.case import Case, cases_of
from adamqlr.study.config import StudyConfig
from adamqlr.study.names import SENSITIVITY


def parts_of(study: StudyConfig) -> list[str]:
    """Return where the cubes of a study lie: suite/dataset/optimizer, and sensitivity/name/value."""
    cases = [case.path for suite in study.suites for case in cases_of(study, suite)]
    sweeps = [f"{SENSITIVITY}/{name}/{point}" for name, sweep in study.sensitivity.items() for point in sweep.points]
    return cases + sweeps


def cube_files(study: StudyConfig) -> list[str]:
    """Return all cubes."""
    return [f"cubes/{part}.nc" for part in parts_of(study)]


def trials_files(study: StudyConfig) -> list[str]:
    """Return all files of trials."""
    cases = [case for suite in study.suites for case in cases_of(study, suite)]
    return [trials_file(case) for case in cases if case.is_tuned]


def group_files(study: StudyConfig, parts: Sequence[str] = ()) -> dict[str, str]:
    """Return every cube and file of trials by its group in the study's file; those of some parts, if any are given."""
    cubes = {part: f"cubes/{part}.nc" for part in parts_of(study)}
    trials = {file.removesuffix("/trials.nc"): file for file in trials_files(study)}
    files = {**cubes, **trials}
    return {g: file for g, file in files.items() if not parts or any(g.startswith(f"{part}/") for part in parts)}


def trials_file(case: Case) -> str:
    """Return the trials of a case's search."""
    return f"tuning/{case.path}/trials.nc"


def best_file(case: Case) -> str:
    """Return the tuned hyperparameters of a case."""
    return f"tuning/{case.path}/best.yaml"


def step_costs_file(case: Case) -> str:
    """Return what a step of a case's optimizer on its dataset takes, in any suite."""
    return f"step_costs/{case.dataset}/{case.optimizer}.csv"


def shard_count(study: StudyConfig) -> int:
    """Return how many shards a search has, none of them without a trial."""
    return min(study.tuning.shards, study.tuning.trials)


def shard_files(study: StudyConfig, part: str) -> list[str]:
    """Return the shards of a search that has several; that in one shard writes the trials of the whole search."""
    count = shard_count(study)
    return [f"tuning/{part}/shards/{shard}.nc" for shard in range(count)] if count > 1 else []


def sweep_run_files(study: StudyConfig, sweep: str, point: str) -> list[str]:
    """Return the files that hold the runs of one value of a sensitivity study."""
    seeds = range(study.sweep(sweep).seeds or study.training.seeds)
    return run_files(study, f"{SENSITIVITY}/{sweep}/{point}", seeds)


def run_files(study: StudyConfig, part: str, seeds: Sequence[int]) -> list[str]:
    """Return the files that hold some seeds' runs, so many in each job."""
    size = study.training.seeds_per_job
    jobs = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    return [f"runs/{part}/seeds_{job[0]}-{job[-1]}.nc" for job in jobs]
