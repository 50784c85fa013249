"""Tables: from a study's results to CSV, Markdown, LaTeX and HTML."""

from pathlib import Path

from adamqlr.files import write_text
from adamqlr.stages.exhibits import make_exhibit
from adamqlr.study.config import StudyConfig
from adamqlr.tables.contents import tables_of
from adamqlr.tables.formats import marked_html, to_html, to_latex, to_markdown


def write_table(name: str, study_path: Path, suite: str, config: StudyConfig | None, stem: Path) -> None:
    """Write a table into ``stem``.csv, .md, .tex and .html.

    Arguments and errors are those of :func:`adamqlr.stages.exhibits.make_exhibit`.
    """
    table = make_exhibit("table", tables_of, name, study_path, suite, config)
    texts = {
        ".csv": table.numbers.to_csv(index=False, float_format="%.8g"),
        ".md": to_markdown(table),
        ".tex": to_latex(table),
        ".html": to_html(marked_html(table)),
    }
    for suffix, text in texts.items():
        write_text(stem.with_name(stem.name + suffix), text)
