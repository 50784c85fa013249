"""Claims: from a study's file, or those of its repetitions, to verdicts."""

from collections.abc import Sequence
from pathlib import Path

from adamqlr.claims.report import as_text, write_claims
from adamqlr.claims.weigh import summarize, weigh
from adamqlr.figures.forest import draw
from adamqlr.figures.style import paper_style, save
from adamqlr.results.repetitions import open_repetitions
from adamqlr.study.config import StudyConfig


def judge_claims(study_paths: Sequence[Path], config: StudyConfig | None, stem: Path) -> str:
    """Weigh every claim on a study, and write and draw ``stem``.csv, .md, .html, .pdf, .png and the summary's files.

    Args:
        study_paths: The study's file, or its folder ``results/<study>``; of several repetitions, those of each.
        config: Margins and resampling; as in the study's file if not given.
        stem: Path of the files, less the suffix.

    Returns:
        The verdicts as lines for a terminal.

    Raises:
        UserError: A file is no study's, or studies differ in more than name and seed.
    """
    with open_repetitions(study_paths, config) as study:
        table = weigh(study)
        summary = summarize(study, table)
    config, repetitions = study.config, 1 + len(study.others)
    write_claims(table, summary, config.claims, stem, repetitions)
    with paper_style():
        save(draw(table, summary, config), table, stem)
    return as_text(table, summary, config, repetitions)
