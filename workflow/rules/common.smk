# The validated configuration, and which files it implies.
import re
import shutil
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from adamqlr.config import SENSITIVITY, fingerprint, parse_config
from adamqlr.errors import UserError
from adamqlr.figures.catalog import figures_of, tables_of
from adamqlr.files import write_text
from adamqlr.problems.registry import DATASETS
from adamqlr.training.job import SeedsJob
from adamqlr.tuning.search import Search

# Jobs use the environment that Snakemake runs in, though nobody has activated it.
if shutil.which("adamqlr") is None:
    shell.prefix(f'export PATH="{Path(sys.executable).parent}:$PATH"; ')

try:
    STUDY = parse_config(config, "configuration")
except UserError as error:
    raise WorkflowError(str(error))

RESULTS = f"results/{STUDY.name}"
CONFIG = f"{RESULTS}/config.yaml"
ENVIRONMENT = "../../envs/conda.yaml"


wildcard_constraints:
    suite="|".join(map(re.escape, STUDY.suites)),
    dataset="[^/]+",
    optimizer="[^/]+",
    shard=r"\d+",
    sweep="[^/]+",
    point="[^/]+",
    first=r"\d+",
    last=r"\d+",


def write_configuration():
    """Leave the configuration in force, command-line settings included, for jobs and for hands.

    It is no rule's output, as a change alone is no reason to run anything again: the `decides` parameters are.
    """
    path = Path(CONFIG)
    settings = dict(config)
    if (
        not path.is_file()
        or yaml.safe_load(path.read_text(encoding="utf-8")) != settings
    ):
        write_text(path, yaml.safe_dump(settings, sort_keys=False))


write_configuration()


def is_fetched(dataset):
    """Tell whether a rule of its own has to bring a dataset to the data folder."""
    return (
        dataset in DATASETS
        and DATASETS[dataset].downloads
        and STUDY.dataset(dataset).path is None
    )


def dataset_of(wildcards):
    if "sweep" in wildcards.keys():
        return STUDY.sweep(wildcards.sweep).dataset
    return wildcards.dataset


def suite_of(wildcards):
    if "sweep" in wildcards.keys():
        return STUDY.sweep(wildcards.sweep).suite
    return wildcards.suite


def optimizer_of(wildcards):
    if "sweep" in wildcards.keys():
        return STUDY.sweep(wildcards.sweep).optimizer
    return wildcards.optimizer


def job_input(wildcards):
    """What jobs wait for; data that is fetched again is the same data."""
    dataset = dataset_of(wildcards)
    return (
        {"data": ancient(f"{RESULTS}/data/{dataset}.txt")}
        if is_fetched(dataset)
        else {}
    )


def shard_files(wildcards):
    return expand(
        f"{RESULTS}/tuning/{wildcards.suite}/{wildcards.dataset}/{wildcards.optimizer}/shards/{{shard}}.nc",
        shard=range(min(STUDY.tuning.shards, STUDY.tuning.trials)),
    )


def search_fingerprint(wildcards):
    return Search(
        STUDY, wildcards.suite, wildcards.dataset, wildcards.optimizer
    ).identity


def training_input(wildcards):
    files = job_input(wildcards)
    suite, dataset, optimizer = (
        of(wildcards) for of in (suite_of, dataset_of, optimizer_of)
    )
    if STUDY.is_tuned(optimizer, dataset):
        files["best"] = f"{RESULTS}/tuning/{suite}/{dataset}/{optimizer}/best.yaml"
    return files


def best_option(wildcards, input):
    return f"--best {input.best}" if "best" in input.keys() else ""


def seeds_of(wildcards):
    return range(int(wildcards.first), int(wildcards.last) + 1)


def training_fingerprint(wildcards):
    """What decides a run's numbers, besides the tuned hyperparameters, which are an input."""
    suite, dataset, optimizer = (
        of(wildcards) for of in (suite_of, dataset_of, optimizer_of)
    )
    options = dict(STUDY.optimizer(optimizer).options)
    if "sweep" in wildcards.keys():
        options |= STUDY.sweep(wildcards.sweep).hyperparameters(wildcards.point)
    return SeedsJob(
        STUDY, suite, dataset, optimizer, options, seeds_of(wildcards)
    ).identity


def run_files(folder, seeds):
    """The files of a folder that hold some seeds' runs, so many in each job."""
    size = STUDY.training.seeds_per_job
    parts = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    return [f"{RESULTS}/runs/{folder}/seeds_{part[0]}-{part[-1]}.nc" for part in parts]


def pair_run_files(wildcards):
    folder = f"{wildcards.suite}/{wildcards.dataset}/{wildcards.optimizer}"
    return run_files(folder, STUDY.seeds(wildcards.dataset))


def sweep_run_files(wildcards):
    seeds = STUDY.sweep(wildcards.sweep).seeds or STUDY.training.seeds
    return run_files(f"{SENSITIVITY}/{wildcards.sweep}/{wildcards.point}", range(seeds))


def cube_files():
    pairs = [
        f"{suite}/{dataset}/{optimizer}"
        for suite in STUDY.suites
        for dataset, optimizer in STUDY.pairs(suite)
    ]
    sweeps = [
        f"{SENSITIVITY}/{name}/{point}"
        for name, sweep in STUDY.sensitivity.items()
        for point in sweep.points
    ]
    return [f"{RESULTS}/cubes/{part}.nc" for part in pairs + sweeps]


def trials_files():
    return [
        f"{RESULTS}/tuning/{suite}/{dataset}/{optimizer}/trials.nc"
        for suite in STUDY.suites
        for dataset, optimizer in STUDY.pairs(suite)
        if STUDY.is_tuned(optimizer, dataset)
    ]


def stem(wildcards, output):
    """The path that a figure's or table's files share, less the suffix."""
    return str(Path(output[0]).with_suffix(""))


def entry_of(catalog, wildcards):
    return catalog(STUDY, wildcards.suite)[wildcards.name]


def caption_of(catalog, wildcards):
    entry = entry_of(catalog, wildcards)
    return {"title": entry.title, "caption": entry.caption}


def labels_of(kind, catalog, wildcards):
    """A title with its number in the catalog, as the report sorts what it shows by its labels."""
    entries = catalog(STUDY, wildcards.suite)
    digits = len(str(len(entries)))
    number = list(entries).index(wildcards.name) + 1
    return {kind: f"{number:0{digits}d}. {entries[wildcards.name].title}"}


def drawing_fingerprint(entry):
    """What decides what is drawn, besides the study's file."""
    return fingerprint(
        [entry.options, STUDY.statistics.model_dump(exclude={"grid_points"})]
    )


def figure_files():
    return [
        f"{RESULTS}/figures/{suite}/{name}.{suffix}"
        for suite in (*STUDY.suites, SENSITIVITY)
        for name in figures_of(STUDY, suite)
        for suffix in ("pdf", "png", "csv")
    ]


def table_files():
    return [
        f"{RESULTS}/tables/{suite}/{name}.{suffix}"
        for suite in STUDY.suites
        for name in tables_of(STUDY, suite)
        for suffix in ("csv", "md", "tex", "html")
    ]


def claims_files():
    return [f"{RESULTS}/claims.{suffix}" for suffix in ("csv", "md", "html")]
