"""From a study's file to the files of one figure or table."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from adamqlr.errors import UserError
from adamqlr.figures.catalog import FIGURES, TABLES, Entry
from adamqlr.figures.style import paper_style, save
from adamqlr.figures.tables import Table
from adamqlr.files import write_text
from adamqlr.results.statistics import Resampling
from adamqlr.results.study import load_study

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


def render(family: str, study_path: Path, suite: str, resampling: Resampling, stem: Path) -> None:
    """Draw a family of figures into ``stem``.pdf and .png, with what is drawn in .csv.

    Raises:
        UserError: There is no such family or suite, or the file is no study's.
    """
    maker = _maker("figure", FIGURES, family)
    study = load_study(study_path)
    with paper_style():
        figure, numbers = maker(study, suite, resampling)
        save(figure, numbers, stem)


def render_table(name: str, study_path: Path, suite: str, resampling: Resampling, stem: Path) -> None:
    """Write a table into ``stem``.csv, .md, .tex and .html.

    Raises:
        UserError: There is no such table or suite, or the file is no study's.
    """
    maker = _maker("table", TABLES, name)
    table = maker(load_study(study_path), suite, resampling)
    write_text(stem.with_name(stem.name + ".csv"), table.numbers.to_csv(index=False, float_format="%.8g"))
    write_text(stem.with_name(stem.name + ".md"), _markdown(table))
    write_text(stem.with_name(stem.name + ".tex"), _latex(table))
    write_text(stem.with_name(stem.name + ".html"), _html(table))


def _maker(kind: str, catalog: dict[str, Entry], name: str) -> Any:
    if name not in catalog:
        raise UserError(f"unknown {kind} '{name}': known are {', '.join(catalog)}")
    module, _, function = catalog[name].maker.partition(":")
    return getattr(import_module(module), function)


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


def _html(table: Table) -> str:
    style = "table{border-collapse:collapse;font:13px sans-serif}td,th{padding:3px 9px;border-bottom:1px solid #ddd}"
    body = _marked(table, "<b>", "</b>").to_html(index=False, escape=False, border=0, justify="left")
    return f"<!doctype html><meta charset='utf-8'><style>{style}</style>\n{body}\n"
