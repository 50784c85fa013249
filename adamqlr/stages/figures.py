"""Figures: from a study's file to PDF, PNG and the numbers as CSV."""

from pathlib import Path

from adamqlr.figures.contents import figures_of
from adamqlr.figures.style import paper_style, save
from adamqlr.results.published import published_file
from adamqlr.results.study import study_config
from adamqlr.stages.exhibits import make_exhibit
from adamqlr.study.config import SENSITIVITY, StudyConfig


def draw_figure(name: str, study_path: Path, suite: str, config: StudyConfig | None, stem: Path) -> None:
    """Draw a figure into ``stem``.pdf and .png, with what is drawn in .csv.

    Args:
        name: One of :func:`adamqlr.figures.contents.figures_of`.
        study_path: The study's file, or its folder ``results/<study>``, of which what is needed is read.
        suite: The suite, or ``sensitivity``.
        config: Decides which figures there are and how seeds are resampled; as in the study's file if not given.
        stem: Path of the files, less the suffix.

    Raises:
        UserError: There is no such figure or suite, or the file is no study's.
    """
    config = config or study_config(study_path)
    if suite != SENSITIVITY:
        config.suite(suite)
    with paper_style():
        known = figures_of(config, suite, published_file(study_path))
        figure, numbers = make_exhibit("figure", known, name, study_path, suite, config)
        save(figure, numbers, stem)
