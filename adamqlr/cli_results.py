"""The commands that read and show a study's results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adamqlr.cli_types import FILE
from adamqlr.startup import imports_uncollected, scipy_hidden

if TYPE_CHECKING:
    from adamqlr.study.config import StudyConfig

_STUDY_OPTION = click.option(
    "--study",
    "study_path",
    type=click.Path(path_type=Path),
    required=True,
    help="The study's file, study.nc, or its folder results/<study>.",
)
_CONFIG_IN_FORCE = click.option(
    "--config", "config_path", type=FILE, help="The study's configuration (YAML); as in the study's file if not given."
)
_STEM_OPTION = click.option("--output", "stem", type=FILE, required=True, help="Path of the files, less the suffix.")


def _config(path: Path | None) -> StudyConfig | None:
    from adamqlr.study.config import load_config

    return load_config(path) if path else None


@click.command()
@click.argument("name")
@_STUDY_OPTION
@click.option("--suite", required=True, help="One of the study's suites, or sensitivity.")
@_CONFIG_IN_FORCE
@_STEM_OPTION
def figures(name: str, study_path: Path, suite: str, config_path: Path | None, stem: Path) -> None:
    """Draw the figure NAME of one suite: PDF, PNG, and the numbers as CSV.

    Figures are trajectories, trajectories_together, performance, loss, loss_by_step, loss_with_evaluation,
    learning_rate, sharpness, damping, profiles, tuning_budget, published, ablation_NAME for each ablation of the
    configuration, factorial_NAME and factorial_NAME_curves for each factorial; of the suite sensitivity, its
    sensitivity studies.
    """
    with imports_uncollected(), scipy_hidden():
        from adamqlr.stages.figures import draw_figure
    draw_figure(name, study_path, suite, _config(config_path), stem)


@click.command()
@click.argument("name")
@_STUDY_OPTION
@click.option("--suite", required=True, help="One of the study's suites.")
@_CONFIG_IN_FORCE
@_STEM_OPTION
def tables(name: str, study_path: Path, suite: str, config_path: Path | None, stem: Path) -> None:
    """Write the table NAME of one suite: CSV, Markdown, LaTeX and HTML.

    Tables are provenance, final_results, best_so_far, divergence, time_to_target, best_hyperparameters, search_space,
    and factorial_NAME for each factorial.
    """
    from adamqlr.stages.tables import write_table

    write_table(name, study_path, suite, _config(config_path), stem)


@click.command()
@click.option(
    "--study",
    "study_paths",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="The study's file, study.nc, or its folder results/<study>; may be given several times.",
)
@_CONFIG_IN_FORCE
@_STEM_OPTION
def claims(study_paths: tuple[Path, ...], config_path: Path | None, stem: Path) -> None:
    """Weigh the paper's claims on a study, draw and print the verdicts.

    CSV, Markdown and HTML have an interval and a verdict for each dataset and suite, PDF and PNG draw them, and files
    with _summary in their names have one verdict for each claim.

    Several studies that are alike but for name and seed are repetitions: claims are weighed over all of them, and
    intervals then cover the searches, too. --study=results/mine_{0..4} gives five.
    """
    with imports_uncollected(), scipy_hidden():
        from adamqlr.stages.claims import judge_claims
    click.echo(judge_claims(study_paths, _config(config_path), stem))


@click.command()
@click.option(
    "--study",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="The study's folder results/<study>, with its figures, tables and claims.",
)
@_CONFIG_IN_FORCE
@click.option("--output", type=FILE, required=True, help="The page, such as results/<study>/index.html.")
def report(folder: Path, config_path: Path | None, output: Path) -> None:
    """Write all that a study shows to one page, which works offline."""
    with imports_uncollected(), scipy_hidden():
        from adamqlr.stages.report import write_report
    write_report(folder, _config(config_path), output)


@click.command()
@click.argument("path", type=FILE)
def info(path: Path) -> None:
    """Print what the result file PATH holds and where it comes from."""
    from adamqlr.stages.info import describe

    click.echo(describe(path))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Show it anew until Ctrl-C, in place on a terminal.")
@click.option("--every", type=click.FloatRange(0.1), default=5.0, show_default=True, help="Seconds of --watch.")
@click.option("--json", "is_json", is_flag=True, help="One line of JSON; results/README.md documents its keys.")
def status(folder: Path, watch: bool, every: float, is_json: bool) -> None:
    """Tell how far the study in FOLDER, results/<study>, is, from files alone: nothing is written, locked or asked.

    A job is

    \b
    done      where its outputs are all there, without Snakemake's marker on them;
    running   where a marker says that it was started, a run holds Snakemake's lock, and
              its log, checkpoint or marker was written in the last three minutes;
    unknown   where only one of the latter two holds: silent, on its own, or killed;
    failed    where its log, or Snakemake's of the last run, ends with an error of it;
    waiting   otherwise: for inputs or its turn, in a cluster's queue, or, once stopped,
              for a run that goes on from its checkpoint.

    A job run by hand waits until its outputs are there. The time left is an estimate, from the medians of finished
    jobs of the same stage and dataset. Time spent is what finished jobs, and failed ones on Slurm, took.
    """
    from adamqlr.stages.status import show_status

    show_status(folder, is_json, every if watch else None)


RESULT_COMMANDS = (figures, tables, claims, report, info, status)
