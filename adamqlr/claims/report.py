"""What became of each claim, as a table of numbers and as text."""

from collections import Counter
from pathlib import Path

import pandas as pd

from adamqlr.claims.judge import Verdict
from adamqlr.claims.statements import CLAIMS, claims_of
from adamqlr.files import write_text
from adamqlr.results.pairs import Study
from adamqlr.study.settings import ClaimsConfig
from adamqlr.tables.formats import to_html

COLUMNS = (
    "claim",
    "statement",
    "suite",
    "dataset",
    "quantity",
    "estimate",
    "lower",
    "upper",
    "relation",
    "limit",
    "verdict",
)


def write_claims(table: pd.DataFrame, settings: ClaimsConfig, stem: Path) -> None:
    """Write what :func:`weigh` returned to ``stem``.csv, .md and .html."""
    write_text(stem.with_name(stem.name + ".csv"), table.to_csv(index=False, float_format="%.8g"))
    write_text(stem.with_name(stem.name + ".md"), _markdown(table, settings))
    write_text(stem.with_name(stem.name + ".html"), to_html(_shown(table)))


def weigh(study: Study) -> pd.DataFrame:
    """Return one row for each claim and each suite, dataset or sensitivity study that has something to say on it."""
    rows = []
    for claim in claims_of(study.config):
        for item in claim.weigh(study):
            judgment = item.judgment
            relation = "≥" if judgment.at_least else "≤"
            where = (claim.key, claim.statement, item.suite, item.dataset, item.quantity)
            found = (judgment.estimate, judgment.lower, judgment.upper)
            rows.append((*where, *found, relation, judgment.limit, str(judgment.verdict)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Claim": table["statement"],
            "Suite": table["suite"],
            "Dataset": table["dataset"],
            "Quantity": table["quantity"],
            "Value [interval]": [
                f"{row.estimate:.3g} [{row.lower:.3g}, {row.upper:.3g}]" for row in table.itertuples()
            ],
            "Wanted": [f"{row.relation} {row.limit:.3g}" for row in table.itertuples()],
            "Verdict": table["verdict"],
        }
    )


def _markdown(table: pd.DataFrame, settings: ClaimsConfig) -> str:
    parts = [
        "# The paper's claims, and what this study says\n",
        "Quantities are ratios (÷) or differences (−) of medians over seeds, with "
        f"{settings.confidence:.0%} percentile intervals of {settings.resamples} bootstrap resamples of the seeds. "
        "A claim is *supported* where the whole interval is within what it allows, *refuted* where all of it is "
        "beyond, and *undecided* otherwise. *Comparable* means a "
        f"ratio of at most {1 + settings.margin:g}; *matters little*, of at most {settings.flatness:g}. Performance is "
        "the test error for classes and the test loss for real targets, the lower the better; a diverged run counts as "
        "infinitely bad.\n",
        _summary(table).to_markdown(index=False) + "\n",
    ]
    for key, rows in table.groupby("claim", sort=False):
        parts.append(f"## {rows['statement'].iloc[0]}\n")
        shown = _shown(rows).drop(columns="Claim")
        parts.append(shown.to_markdown(index=False, disable_numparse=True) + f"\n\n`{key}` in the CSV.\n")
    silent = [claim.statement for claim in CLAIMS if claim.key not in set(table["claim"])]
    if silent:
        parts.append("## Nothing in this study speaks of\n")
        parts.append("\n".join(f"- {statement}" for statement in silent) + "\n")
    return "\n".join(parts)


def _summary(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for _, group in table.groupby("claim", sort=False):
        counts = Counter(group["verdict"])
        rows.append({"Claim": group["statement"].iloc[0]} | {str(v).capitalize(): counts[v] for v in Verdict})
    return pd.DataFrame(rows, columns=["Claim", *(str(verdict).capitalize() for verdict in Verdict)])
