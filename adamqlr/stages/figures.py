"""Figures: from a study's results to PDF, PNG and the numbers as CSV."""

from functools import partial
from pathlib import Path

from adamqlr.figures.contents import figures_of
from adamqlr.figures.style import paper_style, save
from adamqlr.results.published import published_file
from adamqlr.stages.exhibits import make_exhibit
from adamqlr.study.config import StudyConfig


def draw_figure(name: str, study_path: Path, suite: str, config: StudyConfig | None, stem: Path) -> None:
    """Draw a figure into ``stem``.pdf and .png, with what is drawn in .csv.

    Arguments and errors are those of :func:`adamqlr.stages.exhibits.make_exhibit`.
    """
    contents = partial(figures_of, published=published_file(study_path))
    with paper_style():
        figure, numbers = make_exhibit("figure", contents, name, study_path, suite, config)
        save(figure, numbers, stem)
