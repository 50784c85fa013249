"""The jobs that a study consists of: what the workflow's rules make, before anything is made."""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from adamqlr.figures.contents import figures_of
from adamqlr.results.published import Key, Value
from adamqlr.study import paths
from adamqlr.study.case import Case, cases_of
from adamqlr.study.config import StudyConfig
from adamqlr.study.names import SENSITIVITY
from adamqlr.tables.contents import tables_of


class Job(NamedTuple):
    """One job of the workflow. Paths are relative to the study's folder.

    Attributes:
        rule: The workflow's rule.
        name: Which of the rule's jobs; empty for a rule that has one.
        outputs: What it makes.
        dataset: The dataset that it is of, if it is of one.
    """

    rule: str
    name: str
    outputs: tuple[str, ...]
    dataset: str | None = None

    @property
    def log(self) -> str:
        """What it writes to standard error."""
        return f"logs/{self._path}.log"

    @property
    def benchmark(self) -> str:
        """What it took, written by Snakemake once it has succeeded."""
        return f"benchmarks/{self._path}.tsv"

    @property
    def _path(self) -> str:
        return f"{self.rule}/{self.name}" if self.name else self.rule


# In the order of the rule's outputs.
_CLAIMS = (
    *(f"claims.{suffix}" for suffix in ("csv", "md", "pdf")),
    *(f"claims_summary.{suffix}" for suffix in ("csv", "md")),
    *("claims.png", "claims.html", "claims_summary.html"),
)


def training_rules(study: StudyConfig) -> tuple[str, ...]:
    """Return the rules whose jobs compute on a GPU where there is one."""
    return ("step_costs", "tune" if paths.shard_count(study) == 1 else "tune_shard", "train", "sweep")


def jobs_of(study: StudyConfig, published: Mapping[Key, Value]) -> list[Job]:
    """Return all jobs of a study, in the order of its stages.

    Args:
        study: The study.
        published: What others published, which has figures.
    """
    cases = [case for suite in study.suites for case in cases_of(study, suite)]
    return [
        *_fetching(cases),
        *_tuning(study, cases),
        *_trainings(study, cases),
        *_sweeps(study),
        *(Job("aggregate", case.path, (f"cubes/{case.path}.nc",), case.dataset) for case in cases),
        *_sweeps_cubes(study),
        Job("study", "", ("study.nc",)),
        *_exhibits(study, published),
        Job("claims", "", _CLAIMS),
        Job("index", "", ("index.html",)),
    ]


def _fetching(cases: list[Case]) -> Iterator[Job]:
    for dataset in dict.fromkeys(case.dataset for case in cases if case.is_fetched):
        yield Job("fetch_data", dataset, (f"data/{dataset}.txt",), dataset)


def _tuning(study: StudyConfig, cases: list[Case]) -> Iterator[Job]:
    tuned = [case for case in cases if case.is_tuned]
    if study.tuning.unit == "steps":
        for dataset, optimizer, file in dict.fromkeys(
            (c.dataset, c.optimizer, paths.step_costs_file(c)) for c in tuned
        ):
            yield Job("step_costs", f"{dataset}/{optimizer}", (file,), dataset)
    for case in tuned:
        for file in paths.shard_files(study, case.path):
            yield Job("tune_shard", f"{case.path}/{PurePosixPath(file).stem}", (file,), case.dataset)
    for case in tuned:
        yield Job("tune", case.path, (paths.trials_file(case), paths.best_file(case)), case.dataset)


def _trainings(study: StudyConfig, cases: list[Case]) -> Iterator[Job]:
    for case in cases:
        for file in paths.run_files(study, case.path, case.seeds):
            yield Job("train", f"{case.path}/{PurePosixPath(file).stem}", (file,), case.dataset)


def _sweeps(study: StudyConfig) -> Iterator[Job]:
    for name, sweep in study.sensitivity.items():
        for point in sweep.points:
            for file in paths.sweep_run_files(study, name, point):
                yield Job("sweep", f"{name}/{point}/{PurePosixPath(file).stem}", (file,), sweep.dataset)


def _sweeps_cubes(study: StudyConfig) -> Iterator[Job]:
    for name, sweep in study.sensitivity.items():
        for point in sweep.points:
            yield Job("aggregate_sweep", f"{name}/{point}", (f"cubes/{SENSITIVITY}/{name}/{point}.nc",), sweep.dataset)


def _exhibits(study: StudyConfig, published: Mapping[Key, Value]) -> Iterator[Job]:
    for suite in (*study.suites, SENSITIVITY):
        for name in figures_of(study, suite, published):
            yield Job("figure", f"{suite}/{name}", _with_suffixes(f"figures/{suite}/{name}", "pdf", "png", "csv"))
    for suite in study.suites:
        for name in tables_of(study, suite, published):
            yield Job("table", f"{suite}/{name}", _with_suffixes(f"tables/{suite}/{name}", "csv", "md", "tex", "html"))


def _with_suffixes(stem: str, *suffixes: str) -> tuple[str, ...]:
    return tuple(f"{stem}.{suffix}" for suffix in suffixes)
