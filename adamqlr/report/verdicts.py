"""What the page begins with: the paper's claims, drawn and in words."""

from pathlib import Path
from typing import NamedTuple

from adamqlr.claims.report import judging_rule
from adamqlr.claims.weigh import SUMMARY_RULE
from adamqlr.report.exhibits import Figure, TableShown, figure_shown, table_shown
from adamqlr.study.settings import ClaimsConfig


class Verdicts(NamedTuple):
    """The claims of a study: drawn, and as tables."""

    figure: Figure
    tables: list[TableShown]


def verdicts_of(folder: Path, settings: ClaimsConfig) -> Verdicts:
    """Return what a study says of the claims.

    Raises:
        UserError: The claims have not been weighed.
    """
    figure = figure_shown(
        folder,
        "claims",
        "All claims at a glance",
        "A panel for each claim, with the verdict on the whole of it, and a row for each dataset and suite. Markers "
        "are the quantities that claims are about, lines their intervals, and what a claim wants is shaded. A marker "
        "on the edge is beyond the axis; a dotted line could be anything, as both medians are infinite.",
    )
    tables = [
        table_shown(folder, "claims_summary", "A verdict for each claim", SUMMARY_RULE),
        table_shown(folder, "claims", "Each dataset and suite", judging_rule(settings)),
    ]
    return Verdicts(figure, tables)
