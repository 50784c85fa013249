# The validated configuration, and which files it implies.
import math
import shutil
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from adamqlr.config import parse_config
from adamqlr.errors import UserError
from adamqlr.files import write_text
from adamqlr.figures.catalog import FIGURES, TABLES
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
    suite="[^/]+",
    dataset="[^/]+",
    optimizer="[^/]+",
    shard=r"\d+",
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


def job_input(wildcards):
    """What jobs wait for; data that is fetched again is the same data."""
    if not is_fetched(wildcards.dataset):
        return {}
    return {"data": ancient(f"{RESULTS}/data/{wildcards.dataset}.txt")}


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
    if STUDY.is_tuned(wildcards.optimizer, wildcards.dataset):
        files["best"] = (
            f"{RESULTS}/tuning/{wildcards.suite}/{wildcards.dataset}/{wildcards.optimizer}/best.yaml"
        )
    return files


def training_fingerprint(wildcards):
    """What decides a run's numbers, besides the tuned hyperparameters, which are an input."""
    options = STUDY.optimizer(wildcards.optimizer).options
    seeds = range(int(wildcards.first), int(wildcards.last) + 1)
    return SeedsJob(
        STUDY, wildcards.suite, wildcards.dataset, wildcards.optimizer, options, seeds
    ).identity


def packed_runs(wildcards):
    """How many processes share a job's GPU; each is given a core."""
    if STUDY.device == "cpu":
        return 1
    runs = STUDY.tuning.trials
    if "first" in wildcards.keys():
        runs = int(wildcards.last) - int(wildcards.first) + 1
    return min(STUDY.dataset(wildcards.dataset).runs_per_gpu, runs)


def packed_memory(wildcards, attempt):
    """Megabytes of a job; a process that uses CUDA takes some gigabytes for itself."""
    return attempt * (4000 + 4000 * packed_runs(wildcards))


def training_minutes(wildcards, attempt):
    """Time limit of a training job; one that needs more goes on from its checkpoint."""
    if STUDY.suite(wildcards.suite).budget == "epochs":
        return 240 * attempt
    seeds = int(wildcards.last) - int(wildcards.first) + 1
    rounds = math.ceil(seeds / packed_runs(wildcards))
    seconds = rounds * STUDY.dataset(wildcards.dataset).runtime
    return math.ceil(attempt * (20 + 1.5 * seconds / 60))


def run_files(wildcards):
    seeds, size = STUDY.seeds(wildcards.dataset), STUDY.training.seeds_per_job
    parts = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    folder = (
        f"{RESULTS}/runs/{wildcards.suite}/{wildcards.dataset}/{wildcards.optimizer}"
    )
    return [f"{folder}/seeds_{part[0]}-{part[-1]}.nc" for part in parts]


def cube_files():
    return [
        f"{RESULTS}/cubes/{suite}/{dataset}/{optimizer}.nc"
        for suite in STUDY.suites
        for dataset, optimizer in STUDY.pairs(suite)
    ]


def stem(wildcards, output):
    """The path that a figure's or table's files share, less the suffix."""
    return str(Path(output[0]).with_suffix(""))


def figure_files():
    return [
        f"{RESULTS}/figures/{suite}/{family}.{suffix}"
        for suite in STUDY.suites
        for family, entry in FIGURES.items()
        if entry.applies(STUDY, suite)
        for suffix in ("pdf", "png", "csv")
    ]


def table_files():
    return [
        f"{RESULTS}/tables/{suite}/{name}.{suffix}"
        for suite in STUDY.suites
        for name, entry in TABLES.items()
        if entry.applies(STUDY, suite)
        for suffix in ("csv", "md", "tex", "html")
    ]
