"""Claims: from a study's file to verdicts."""

from pathlib import Path

from adamqlr.claims.report import as_text, write_claims
from adamqlr.claims.weigh import summarize, weigh
from adamqlr.figures.forest import draw
from adamqlr.figures.style import paper_style, save
from adamqlr.results.pairs import Study
from adamqlr.results.study import open_study, study_config
from adamqlr.study.config import StudyConfig


def judge_claims(study_path: Path, config: StudyConfig | None, stem: Path) -> str:
    """Weigh every claim on a study, and write and draw ``stem``.csv, .md, .html, .pdf, .png and the summary's files.

    Args:
        study_path: The study's file, or its folder ``results/<study>``.
        config: Margins and resampling; as in the study's file if not given.
        stem: Path of the files, less the suffix.

    Returns:
        The verdicts as lines for a terminal.

    Raises:
        UserError: The file is no study's.
    """
    config = config or study_config(study_path)
    with open_study(study_path, config=config) as tree:
        study = Study(tree, config)
        table = weigh(study)
        summary = summarize(study, table)
    write_claims(table, summary, config.claims, stem)
    with paper_style():
        save(draw(table, summary, config), table, stem)
    return as_text(table, summary, config)
