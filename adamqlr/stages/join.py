"""Joining: from all cubes and trials in a study's folder to the study's file."""

from pathlib import Path

from adamqlr.results.join import write_study
from adamqlr.study import paths
from adamqlr.study.config import load_config


def join_study(config_path: Path, output: Path) -> None:
    """Join all cubes and trials of the study in a configuration's folder into the study's file.

    Args:
        config_path: ``results/<study>/config.yaml``, which the file keeps.
        output: The study's file.

    Raises:
        UserError: A file is missing, or of another study.
    """
    config = load_config(config_path)
    files = [*paths.cube_files(config), *paths.trials_files(config)]
    write_study([config_path.parent / file for file in files], output, config)
