# The validated configuration, and which files it implies.
import os
import re
import shutil
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from adamqlr.errors import UserError
from adamqlr.figures.contents import figures_of
from adamqlr.files import write_text
from adamqlr.results.published import published_file, read_published
from adamqlr.status.expected import jobs_of
from adamqlr.study import paths
from adamqlr.study.case import Case, cases_of
from adamqlr.study.config import parse_config
from adamqlr.study.fingerprint import fingerprint
from adamqlr.study.names import SENSITIVITY
from adamqlr.study.optimizers import own_options
from adamqlr.tables.contents import tables_of

# The executor's package lifts a limit of Snakemake's that costs time; a study on the machine at hand goes without it, too.
try:
    from snakemake_executor_plugin_submitit.pace import lift_default_rate_limit
except ModuleNotFoundError:
    lift_default_rate_limit = None

# Jobs use the environment that Snakemake runs in, though nobody has activated it.
if shutil.which("adamqlr") is None:
    shell.prefix(f'export PATH="{Path(sys.executable).parent}:$PATH"; ')


def published_values():
    """Published values; none in a job whose run began before the file was spoiled.

    The commands of those that show them read the file themselves, and say what is wrong with it.
    """
    try:
        return read_published(published_file(Path(f"{RESULTS}/study.nc")))
    except UserError:
        if workflow.is_main_process:
            raise
        return {}


try:
    STUDY = parse_config(config, "configuration")
    RESULTS = f"results/{STUDY.name}"
    PUBLISHED = published_values()
except UserError as error:
    raise WorkflowError(str(error))

CONFIG = f"{RESULTS}/config.yaml"
# What a job reads is what its run began with: the file that was given may have been edited since, for another run.
if workflow.is_main_process:
    workflow.config_settings.configfiles = [Path(CONFIG).absolute()]
SHARDS = paths.shard_count(STUDY)
JOBS = jobs_of(STUDY, PUBLISHED)
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


onstart:
    if lift_default_rate_limit:
        lift_default_rate_limit(workflow.scheduler)
    # The configuration in force, command-line settings included, for jobs and for hands. It is no rule's output, as a
    # change alone is no reason to run anything again: the `decides` parameters are.
    write_text(Path(CONFIG), yaml.safe_dump(dict(config), sort_keys=False))


def in_results(files):
    return [f"{RESULTS}/{file}" for file in files]


def case_of(wildcards):
    """The case that a job is of; a sensitivity study is of one too."""
    if "sweep" in wildcards.keys():
        sweep = STUDY.sweep(wildcards.sweep)
        return Case(STUDY, sweep.suite, sweep.dataset, sweep.optimizer)
    # What a step costs does not depend on the suite.
    suite = getattr(wildcards, "suite", next(iter(STUDY.suites)))
    return Case(STUDY, suite, wildcards.dataset, wildcards.optimizer)


def job_input(wildcards):
    """What jobs wait for; data that is fetched again is the same data."""
    case = case_of(wildcards)
    if case.is_fetched:
        return {"data": ancient(f"{RESULTS}/data/{case.dataset}.txt")}
    # A file of one's own is no reason to run again; where it is missing, Snakemake says so before anything runs.
    own = case.settings.path
    is_missing = own and not (STUDY.data_folder / own).exists() and not own.exists()
    return {"data": str(own)} if is_missing else {}


def shard_files(wildcards):
    return in_results(paths.shard_files(STUDY, case_of(wildcards).path))


def search_input(wildcards):
    files, case = job_input(wildcards), case_of(wildcards)
    if STUDY.tuning.unit == "steps":
        files["costs"] = f"{RESULTS}/{paths.step_costs_file(case)}"
    return files


def step_costs_input(wildcards):
    """The data, but for costs that lie here before it does: another study's, which would be measured again for it."""
    files, costs = (
        job_input(wildcards),
        f"{RESULTS}/{paths.step_costs_file(case_of(wildcards))}",
    )
    is_copied = Path(costs).exists() and not all(map(os.path.exists, files.values()))
    return {} if is_copied else files


def step_costs_option(wildcards, input):
    return f"--step-costs {input.costs}" if "costs" in input.keys() else ""


def step_costs_fingerprint(wildcards):
    return case_of(wildcards).step_costs_fingerprint()


def search_fingerprint(wildcards):
    return case_of(wildcards).search_fingerprint()


def training_input(wildcards):
    files, case = job_input(wildcards), case_of(wildcards)
    if case.is_tuned:
        files["best"] = f"{RESULTS}/{paths.best_file(case)}"
    return files


def what_is_trained(wildcards):
    """The command of a training job: a pair as it is, or with one of its hyperparameters at a value."""
    if "sweep" in wildcards.keys():
        return f"sweep {wildcards.sweep} --value {wildcards.point}"
    return (
        f"train --suite {wildcards.suite} --dataset {wildcards.dataset}"
        f" --optimizer {wildcards.optimizer}"
    )


def best_option(wildcards, input):
    return f"--best {input.best}" if "best" in input.keys() else ""


def seeds_of(wildcards):
    return range(int(wildcards.first), int(wildcards.last) + 1)


def training_fingerprint(wildcards):
    """What decides a run's numbers, besides the tuned hyperparameters, which are an input."""
    case = case_of(wildcards)
    options = own_options(STUDY.optimizer(case.optimizer))
    if "sweep" in wildcards.keys():
        options |= STUDY.sweep(wildcards.sweep).hyperparameters(wildcards.point)
    return case.training_fingerprint(options, seeds_of(wildcards))


def pair_run_files(wildcards):
    case = case_of(wildcards)
    return in_results(paths.run_files(STUDY, case.path, case.seeds))


def sweep_run_files(wildcards):
    return in_results(paths.sweep_run_files(STUDY, wildcards.sweep, wildcards.point))


def outputs_of(*rules):
    """What all jobs of some rules make."""
    return in_results(file for job in JOBS if job.rule in rules for file in job.outputs)


def stem(wildcards, output):
    """The path that a figure's or table's files share, less the suffix."""
    return str(Path(output[0]).with_suffix(""))


def exhibit_of(contents, wildcards):
    exhibits = contents(STUDY, wildcards.suite, PUBLISHED)
    if wildcards.name not in exhibits:
        known = ", ".join(exhibits) or "none"
        raise WorkflowError(
            f"there is no '{wildcards.name}' of '{wildcards.suite}', which has {known}"
        )
    return exhibits[wildcards.name]


def exhibit_input(contents, wildcards):
    """The cubes, or trials, that a figure or table shows."""
    part = exhibit_of(contents, wildcards).part or wildcards.suite
    return in_results(paths.group_files(STUDY, [part]).values())


def caption_of(contents, wildcards):
    exhibit = exhibit_of(contents, wildcards)
    return {"title": exhibit.title, "caption": exhibit.caption}


def labels_of(kind, contents, wildcards):
    """A title with its number among its like, as the report sorts what it shows by its labels."""
    exhibits = contents(STUDY, wildcards.suite, PUBLISHED)
    digits = len(str(len(exhibits)))
    number = list(exhibits).index(wildcards.name) + 1
    return {kind: f"{number:0{digits}d}. {exhibits[wildcards.name].title}"}


def names_of(part):
    """What the optimizers and datasets of a suite or sensitivity study are called, and which are alike."""
    kind, _, name = part.rpartition("/")
    named = [STUDY.sweep(name)] if kind == SENSITIVITY else cases_of(STUDY, name)
    return sorted(
        (STUDY.dataset_label(one.dataset), spec.key, spec.label, spec.family)
        for one in named
        for spec in [STUDY.spec(one.optimizer)]
    )


def drawing_fingerprint(contents, wildcards):
    """What decides what is drawn, besides the cubes: names, and published values where it shows any."""
    exhibit = exhibit_of(contents, wildcards)
    names = names_of(exhibit.part or wildcards.suite)
    statistics = STUDY.statistics.model_dump(exclude={"grid_points"})
    published = sorted(exhibit.published.items())
    return fingerprint([exhibit.options, statistics, names, *published])


def report_fingerprint():
    """What decides what the report shows, besides the files that it shows: the configuration, titles and captions."""
    exhibits = [
        (suite, name, exhibit.title, exhibit.caption)
        for contents in (figures_of, tables_of)
        for suite in (*STUDY.suites, SENSITIVITY)
        for name, exhibit in contents(STUDY, suite, PUBLISHED).items()
    ]
    return fingerprint([STUDY.model_dump(mode="json"), exhibits])
