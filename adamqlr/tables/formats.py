"""Tables as Markdown, LaTeX and HTML."""

import html

import pandas as pd

from adamqlr.tables.table import Table

_LATEX_SPECIAL = {
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "…": r"\dots{}",
    "∞": r"$\infty$",
    "ε": r"$\varepsilon$",
    "λ": r"$\lambda$",
    "ρ": r"$\rho$",
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
}


def marked(table: Table, before: str, after: str) -> pd.DataFrame:
    """Return the cells as shown, the best between two marks."""
    return table.shown.where(~table.best, before + table.shown.astype(str) + after)


def to_markdown(table: Table) -> str:
    """Return a table with the best in bold."""
    escaped = table._replace(shown=in_markdown(table.shown))
    return marked(escaped, "**", "**").to_markdown(index=False, disable_numparse=True) + "\n"


def marked_html(table: Table) -> pd.DataFrame:
    """Return a table's cells as HTML says them, the best in bold."""
    return marked(table._replace(shown=in_html(table.shown)), "<b>", "</b>")


def in_markdown(cells: pd.DataFrame) -> pd.DataFrame:
    """Return cells whose text is not taken for the table's own marks."""
    return cells.map(lambda cell: cell.replace("|", r"\|").replace("<", "&lt;") if isinstance(cell, str) else cell)


def in_html(cells: pd.DataFrame) -> pd.DataFrame:
    """Return cells whose text is not taken for HTML."""
    return cells.map(lambda cell: html.escape(cell, quote=False) if isinstance(cell, str) else cell)


def to_latex(table: Table) -> str:
    """Return a tabular, or a longtable where there are many rows."""
    translation = str.maketrans(_LATEX_SPECIAL)
    escaped = table._replace(shown=table.shown.map(lambda text: str(text).translate(translation)))
    cells = marked(escaped, r"\textbf{", "}").rename(columns=lambda name: name.translate(translation))
    columns = "l" * cells.shape[1]
    return cells.to_latex(index=False, escape=False, column_format=columns, longtable=len(cells) > 40)


def to_html(table: pd.DataFrame) -> str:
    """Return a page of one table, whose cells may hold markup."""
    style = "table{border-collapse:collapse;font:13px sans-serif}td,th{padding:3px 9px;border-bottom:1px solid #ddd}"
    body = table.to_html(index=False, escape=False, border=0, justify="left").replace("<th>", '<th scope="col">')
    return f"<!doctype html><meta charset='utf-8'><style>{style}</style>\n{body}\n"
