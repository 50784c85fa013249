"""The command line: every stage of the study, for the workflow and for hands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from adamqlr import __version__
from adamqlr.cli_results import RESULT_COMMANDS
from adamqlr.cli_types import FILE, SeedRange, ShardNumber
from adamqlr.errors import UserError
from adamqlr.jobs.interrupts import Interrupted
from adamqlr.logs import configure_logging
from adamqlr.startup import imports_uncollected

if TYPE_CHECKING:
    from adamqlr.study.case import Case

# What takes a while to import, PyTorch, Pydantic and the plotting libraries, is imported by the commands that need it.

_CONFIG_OPTION = click.option(
    "--config", "config_path", type=FILE, required=True, help="The study's configuration (YAML)."
)
_DATASET_OPTION = click.option("--dataset", required=True, help="One of the study's datasets.")
_OPTIMIZER_OPTION = click.option("--optimizer", required=True, help="One of the study's optimizers.")
_SEEDS_OPTION = click.option(
    "--seeds", type=SeedRange(), default="0", show_default=True, help="Seeds: 0-9, or 0,2,5-7."
)
_BEST_OPTION = click.option("--best", type=FILE, help="best.yaml of a finished search: the tuned hyperparameters.")
_OUTPUT_OPTION = click.option("--output", type=FILE, required=True, help="The file to write.")


def _pair_options(command: Callable[..., None]) -> Callable[..., None]:
    options = [
        _CONFIG_OPTION,
        _DATASET_OPTION,
        _OPTIMIZER_OPTION,
        click.option("--suite", help="One of the study's suites; its first, if not given."),
        click.option(
            "--set",
            "settings",
            metavar="KEY=VALUE",
            multiple=True,
            help="Change a setting: dataset.NAME, a path in the configuration, or, of `train`, optimizer.NAME (a "
            "hyperparameter).",
        ),
        click.option(
            "--processes",
            type=click.IntRange(1),
            help="Processes that share the device; the dataset's runs_per_gpu on a GPU, and 1 elsewhere, if not given.",
        ),
        _OUTPUT_OPTION,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _case(config_path: Path, dataset: str, optimizer: str, suite: str | None, settings: tuple[str, ...]) -> Case:
    renamed = [
        f"datasets.{dataset}.{setting.removeprefix('dataset.')}" if setting.startswith("dataset.") else setting
        for setting in settings
        if not setting.startswith("optimizer.")
    ]
    from adamqlr.study.case import Case
    from adamqlr.study.config import load_config

    study = load_config(config_path, renamed)
    return Case(study, suite or next(iter(study.suites)), dataset, optimizer)


def _hyperparameters(settings: tuple[str, ...]) -> dict[str, Any]:
    from adamqlr.study.overrides import parse_value

    pairs = [
        setting.removeprefix("optimizer.").partition("=") for setting in settings if setting.startswith("optimizer.")
    ]
    for name, separator, _ in pairs:
        if not separator:
            raise UserError(f"--set optimizer.{name}: expected optimizer.NAME=VALUE")
    return {name: parse_value(text) for name, _, text in pairs}


def _refuse_hyperparameters(settings: tuple[str, ...]) -> None:
    if _hyperparameters(settings):
        raise UserError("--set optimizer.NAME: fix it under 'optimizers' in the configuration instead")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """AdamQLR and its study: tune, train, aggregate, draw."""


@cli.command()
@_pair_options
@_SEEDS_OPTION
@_BEST_OPTION
def train(
    config_path: Path,
    dataset: str,
    optimizer: str,
    suite: str | None,
    settings: tuple[str, ...],
    processes: int | None,
    output: Path,
    seeds: list[int],
    best: Path | None,
) -> None:
    """Train one optimizer on one dataset for some seeds, and write what was recorded.

    Killed and run again, it goes on from its last checkpoint, beside the output, to the same numbers.
    """
    case = _case(config_path, dataset, optimizer, suite, settings)
    with imports_uncollected():
        from adamqlr.stages.train import train as train_stage
        from adamqlr.tuning.trials import read_best
    chosen = read_best(best, case.suite, dataset, optimizer) if best else {}
    hyperparameters = {**chosen, **_hyperparameters(settings)}
    case.check_tuned(hyperparameters)
    train_stage(case, seeds, hyperparameters, output, processes)


@cli.command()
@click.argument("name")
@_CONFIG_OPTION
@click.option("--value", required=True, help="One of the sensitivity study's values.")
@_SEEDS_OPTION
@_BEST_OPTION
@_OUTPUT_OPTION
def sweep(
    name: str,
    config_path: Path,
    value: str,
    seeds: list[int],
    best: Path | None,
    output: Path,
) -> None:
    """Train one value of the sensitivity study NAME for some seeds, as `adamqlr train` does."""
    from adamqlr.study.config import load_config

    config = load_config(config_path)
    with imports_uncollected():
        from adamqlr.stages.sweep import sweep as sweep_stage
    sweep_stage(config, name, value, seeds, best, output)


@cli.command()
@_pair_options
@click.option("--shard", type=ShardNumber(), default="0/1", show_default=True, help="Train shard k of K only.")
@click.option("--step-costs", "costs", type=FILE, help="What steps cost, where tuning.unit is steps.")
@click.option("--best", type=FILE, help="Of a search in one shard, also choose the best hyperparameters (YAML).")
def tune(
    config_path: Path,
    dataset: str,
    optimizer: str,
    suite: str | None,
    settings: tuple[str, ...],
    processes: int | None,
    output: Path,
    shard: tuple[int, int],
    costs: Path | None,
    best: Path | None,
) -> None:
    """Search hyperparameters by asynchronous successive halving, or one shard of the search.

    Shards run at once or one after another, and share what they found through a journal beside their outputs. `adamqlr
    select` joins them.
    """
    case = _case(config_path, dataset, optimizer, suite, settings)
    _refuse_hyperparameters(settings)
    with imports_uncollected():
        from adamqlr.stages.tune import tune as tune_stage
    tune_stage(case, shard, output, processes, costs, best)


@cli.command("step-costs")
@_CONFIG_OPTION
@_DATASET_OPTION
@_OPTIMIZER_OPTION
@click.option("--output", type=FILE, required=True, help="The file to write (CSV).")
def step_costs(config_path: Path, dataset: str, optimizer: str, output: Path) -> None:
    """Measure what a step takes at each batch size of a search, for searches whose rungs count steps."""
    case = _case(config_path, dataset, optimizer, None, ())
    with imports_uncollected():
        from adamqlr.stages.step_costs import measure_step_costs
    measure_step_costs(case, output)


@cli.command()
@click.argument("shards", type=FILE, nargs=-1, required=True)
@click.option("--output", type=FILE, required=True, help="The file of all trials.")
@click.option("--best", type=FILE, required=True, help="The best hyperparameters (YAML), for `adamqlr train --best`.")
def select(shards: tuple[Path, ...], output: Path, best: Path) -> None:
    """Join the SHARDS of a search and choose the best hyperparameters."""
    from adamqlr.stages.select import select as select_stage

    select_stage(shards, output, best)


@cli.command()
@_CONFIG_OPTION
@_DATASET_OPTION
@click.option("--output", type=FILE, help="Write a receipt here once the data is in place.")
def fetch(config_path: Path, dataset: str, output: Path | None) -> None:
    """Bring a dataset to the data folder, if it is not there, and check that it can be read."""
    from adamqlr.stages.fetch import fetch as fetch_stage
    from adamqlr.study.config import load_config

    fetch_stage(dataset, load_config(config_path), output)


@cli.command()
@click.argument("inputs", type=FILE, nargs=-1)
@click.option("--config", "config_path", type=FILE, help="Instead of inputs: config.yaml in the study's folder.")
@click.option("--output", type=FILE, required=True, help="The cube, or the study's file.")
@click.option("--grid-points", type=click.IntRange(2), default=200, show_default=True, help="Points of the time grid.")
def aggregate(inputs: tuple[Path, ...], config_path: Path | None, output: Path, grid_points: int) -> None:
    """Join the run files of one pair into a cube, or cubes and files of trials into the study's file."""
    if bool(inputs) == (config_path is not None):
        raise click.UsageError("give the inputs, or the study's --config")
    if config_path is not None:
        from adamqlr.stages.join import join_study

        join_study(config_path, output)
        return
    from adamqlr.stages.aggregate import aggregate as aggregate_stage

    aggregate_stage(inputs, output, grid_points)


@cli.command()
def schema() -> None:
    """Print the JSON schema of configurations, by which editors complete and check a study's YAML."""
    from adamqlr.study.schema import schema_text

    click.echo(schema_text(), nl=False)


for command in RESULT_COMMANDS:
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line; what a user can cause ends with one line and exit code 2."""
    configure_logging()
    code = 0
    try:
        cli(prog_name="adamqlr")
    except UserError as error:
        click.echo(f"adamqlr: error: {error}", err=True)
        code = 2
    except Interrupted as error:
        click.echo(f"adamqlr: {error}", err=True)
        code = 128 + error.signum
    # Out here the exception, and with it all that its frames hold, is gone: processes that read data end now.
    sys.exit(code)
