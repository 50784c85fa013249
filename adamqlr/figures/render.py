"""From a study's file to the files of one figure or table."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from adamqlr.config import SENSITIVITY, StudyConfig
from adamqlr.errors import UserError
from adamqlr.figures.catalog import Entry, figures_of, tables_of
from adamqlr.figures.tables import Table
from adamqlr.files import write_text
from adamqlr.results.statistics import Resampling
from adamqlr.results.study import open_study, study_config

_LATEX_SPECIAL = {
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "…": r"\dots{}",
    "ε": r"$\varepsilon$",
}


def render(name: str, study_path: Path, suite: str, config: StudyConfig | None, stem: Path) -> None:
    """Draw a figure into ``stem``.pdf and .png, with what is drawn in .csv.

    Args:
        name: One of :func:`adamqlr.figures.catalog.figures_of`.
        study_path: The study's file.
        suite: The suite, or ``sensitivity``.
        config: Decides which figures there are and how seeds are resampled; as in the study's file if not given.
        stem: Path of the files, less the suffix.

    Raises:
        UserError: There is no such figure or suite, or the file is no study's.
    """
    # Tables do not wait for matplotlib.
    from adamqlr.figures.style import paper_style, save

    with paper_style():
        figure, numbers = _make("figure", figures_of, name, study_path, suite, config)
        save(figure, numbers, stem)


def render_table(name: str, study_path: Path, suite: str, config: StudyConfig | None, stem: Path) -> None:
    """Write a table into ``stem``.csv, .md, .tex and .html; arguments and errors are those of :func:`render`."""
    table = _make("table", tables_of, name, study_path, suite, config)
    write_text(stem.with_name(stem.name + ".csv"), table.numbers.to_csv(index=False, float_format="%.8g"))
    write_text(stem.with_name(stem.name + ".md"), _markdown(table))
    write_text(stem.with_name(stem.name + ".tex"), _latex(table))
    write_text(stem.with_name(stem.name + ".html"), to_html(_marked(table, "<b>", "</b>")))


def _make(
    kind: str,
    catalog: Callable[[StudyConfig, str], dict[str, Entry]],
    name: str,
    study_path: Path,
    suite: str,
    config: StudyConfig | None,
) -> Any:
    config = config or study_config(study_path)
    if suite != SENSITIVITY:
        config.suite(suite)
    entries = catalog(config, suite)
    if name not in entries:
        raise UserError(f"unknown {kind} '{name}': suite '{suite}' has {', '.join(entries) or 'none'}")
    entry = entries[name]
    module, _, function = entry.maker.partition(":")
    resampling = Resampling(config.statistics.resamples, config.statistics.seed)
    with open_study(study_path, entry.part or suite) as study:
        return getattr(import_module(module), function)(study, suite, resampling, **entry.options)


def _marked(table: Table, before: str, after: str) -> pd.DataFrame:
    return table.shown.where(~table.best, before + table.shown.astype(str) + after)


def _markdown(table: Table) -> str:
    return _marked(table, "**", "**").to_markdown(index=False, disable_numparse=True) + "\n"


def _latex(table: Table) -> str:
    translation = str.maketrans(_LATEX_SPECIAL)
    escaped = table._replace(shown=table.shown.map(lambda text: str(text).translate(translation)))
    marked = _marked(escaped, r"\textbf{", "}").rename(columns=lambda name: name.translate(translation))
    columns = "l" * marked.shape[1]
    return marked.to_latex(index=False, escape=False, column_format=columns, longtable=len(marked) > 40)


def to_html(table: pd.DataFrame) -> str:
    """Return a page of one table, whose cells may hold markup."""
    style = "table{border-collapse:collapse;font:13px sans-serif}td,th{padding:3px 9px;border-bottom:1px solid #ddd}"
    body = table.to_html(index=False, escape=False, border=0, justify="left")
    return f"<!doctype html><meta charset='utf-8'><style>{style}</style>\n{body}\n"
