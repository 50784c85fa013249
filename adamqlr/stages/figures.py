"""Figures: from a study's results to PDF, PNG and the numbers as CSV."""

from pathlib import Path

from adamqlr.figures.contents import figures_of
from adamqlr.figures.style import paper_style, save
from adamqlr.stages.exhibits import make_exhibit
from adamqlr.study.config import StudyConfig


def draw_figure(name: str, study_path: Path, suite: str, config: StudyConfig | None, stem: Path) -> None:
    """Draw a figure into ``stem``.pdf and .png, with what is drawn in .csv.

    Arguments and errors are those of :func:`adamqlr.stages.exhibits.make_exhibit`.
    """
    with paper_style():
        figure, numbers = make_exhibit("figure", figures_of, name, study_path, suite, config)
        save(figure, numbers, stem)
