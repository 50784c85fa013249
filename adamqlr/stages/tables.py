"""Tables: from a study's file to CSV, Markdown, LaTeX and HTML."""

from pathlib import Path

from adamqlr.files import write_text
from adamqlr.results.study import study_config
from adamqlr.stages.exhibits import make_exhibit
from adamqlr.study.config import SENSITIVITY, StudyConfig
from adamqlr.tables.contents import tables_of
from adamqlr.tables.formats import marked, to_html, to_latex, to_markdown


def write_table(name: str, study_path: Path, suite: str, config: StudyConfig | None, stem: Path) -> None:
    """Write a table into ``stem``.csv, .md, .tex and .html.

    Args:
        name: One of :func:`adamqlr.tables.contents.tables_of`.
        study_path: The study's file, or its folder ``results/<study>``, of which what is needed is read.
        suite: The suite.
        config: Decides which tables there are and how seeds are resampled; as in the study's file if not given.
        stem: Path of the files, less the suffix.

    Raises:
        UserError: There is no such table or suite, or the file is no study's.
    """
    config = config or study_config(study_path)
    if suite != SENSITIVITY:
        config.suite(suite)
    table = make_exhibit("table", tables_of(config, suite), name, study_path, suite, config)
    texts = {
        ".csv": table.numbers.to_csv(index=False, float_format="%.8g"),
        ".md": to_markdown(table),
        ".tex": to_latex(table),
        ".html": to_html(marked(table, "<b>", "</b>")),
    }
    for suffix, text in texts.items():
        write_text(stem.with_name(stem.name + suffix), text)
