"""What the page shows of the files that a study wrote: figures, tables, and the commands that make them."""

import re
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup, escape

from adamqlr.errors import UserError
from adamqlr.figures.contents import figures_of
from adamqlr.report.images import EmbeddedImage, embed
from adamqlr.results.study import Study
from adamqlr.study.names import SENSITIVITY
from adamqlr.tables.contents import tables_of

# The table that says what was run has a place of its own, before the suites.
WHAT_WAS_RUN = "provenance"


class Figure(NamedTuple):
    """A figure, embedded.

    Attributes:
        title: Its name.
        caption: What it shows.
        stem: Its files' path below the study's folder, less the suffix.
        image: The figure.
    """

    title: str
    caption: Markup
    stem: str
    image: EmbeddedImage


class TableShown(NamedTuple):
    """A table: its name, what it shows, its files' path below the study's folder less the suffix, and its rows."""

    title: str
    caption: Markup
    stem: str
    rows: Markup


class Suite(NamedTuple):
    """What one suite shows."""

    name: str
    figures: list[Figure]
    tables: list[TableShown]


def suites_of(folder: Path, study: Study) -> list[Suite]:
    """Return what each suite shows, and the sensitivity studies, in the order of the study.

    Raises:
        UserError: A figure or table is not there.
    """
    suites, config = [], study.config
    for suite in (*config.suites, SENSITIVITY):
        figures = [
            figure_shown(folder, f"figures/{suite}/{name}", exhibit.title, exhibit.caption)
            for name, exhibit in figures_of(config, suite, study.published).items()
        ]
        tables = [
            table_shown(folder, f"tables/{suite}/{name}", exhibit.title, exhibit.caption)
            for name, exhibit in tables_of(config, suite, study.published).items()
            if name != WHAT_WAS_RUN
        ]
        if figures or tables:
            suites.append(Suite(suite, figures, tables))
    return suites


def what_was_run(folder: Path, study: Study) -> list[TableShown]:
    """Return the tables that say what was run, one for each suite."""
    shown, config = [], study.config
    for suite in config.suites:
        exhibit = tables_of(config, suite, study.published)[WHAT_WAS_RUN]
        title = f"{exhibit.title}: {suite}" if len(config.suites) > 1 else exhibit.title
        shown.append(table_shown(folder, f"tables/{suite}/{WHAT_WAS_RUN}", title, exhibit.caption))
    return shown


def figure_shown(folder: Path, stem: str, title: str, caption: str) -> Figure:
    """Return a figure that the study wrote.

    Raises:
        UserError: It is not there.
    """
    image = embed(_existing(folder, f"{stem}.png"))
    return Figure(title, emphasized(caption), stem, image)


def table_shown(folder: Path, stem: str, title: str, caption: str) -> TableShown:
    """Return a table that the study wrote.

    Raises:
        UserError: It is not there.
    """
    page = _existing(folder, f"{stem}.html").read_text(encoding="utf-8")
    rows = page[page.index("<thead>") : page.index("</table>")]
    return TableShown(title, emphasized(caption), stem, Markup(rows))


def emphasized(caption: str) -> Markup:
    """Return a caption with what stands between asterisks set off, and numbers beside their percent signs."""
    return Markup(re.sub(r"\*([^*]+)\*", r"<em>\1</em>", str(escape(caption))).replace(" %", "\u00a0%"))


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise UserError(f"{path}: no such file, which the report shows; snakemake makes it, and the report after it")
    return path
