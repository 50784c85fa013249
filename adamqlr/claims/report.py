"""What became of each claim, as tables of numbers and as text."""

import math
from pathlib import Path

import pandas as pd

from adamqlr.claims.judge import Verdict
from adamqlr.claims.more_seeds import how_to_decide, more_seeds_text, unit_of
from adamqlr.claims.weigh import NOT_WEIGHED, SUMMARY_RULE
from adamqlr.files import write_text
from adamqlr.study.config import StudyConfig
from adamqlr.study.settings import ClaimsConfig
from adamqlr.tables.formats import in_html, in_markdown, to_html

# What 95 % percentile intervals of resampled medians cover; the tests simulate it.
_FEW = (
    "Of few {unit} an interval of 95 % holds the true median less often than it says: of two in half of the cases, of "
    "three in three quarters, of more in 87 % to 95 %."
)


def write_claims(
    table: pd.DataFrame, summary: pd.DataFrame, settings: ClaimsConfig, stem: Path, repetitions: int = 1
) -> None:
    """Write claims to ``stem``.md and .html, and to ``stem``_summary.csv, .md and .html a verdict for each.

    The CSV file of the rows is that of the figure, which draws them all.

    Args:
        table: What :func:`adamqlr.claims.weigh.weigh` returned.
        summary: What :func:`adamqlr.claims.weigh.summarize` returned.
        settings: How claims were judged.
        stem: Path of the files, less the suffix.
        repetitions: How often the study was run.
    """
    short = _shown_summary(summary)
    texts = {
        ".md": _markdown(table, summary, judging_rule(settings, repetitions)),
        ".html": to_html(in_html(_shown(table))),
        "_summary.csv": summary.to_csv(index=False),
        "_summary.md": f"{SUMMARY_RULE}\n\n{_as_markdown(short)}",
        "_summary.html": to_html(in_html(short).replace(r"`([^`]+)`", r"<code>\1</code>", regex=True)),
    }
    for suffix, text in texts.items():
        write_text(stem.with_name(stem.name + suffix), text)


def as_text(table: pd.DataFrame, summary: pd.DataFrame, config: StudyConfig, repetitions: int = 1) -> str:
    """Return the verdicts as lines for a terminal, and the command whose seeds would decide what is undecided.

    Of several repetitions of the study, lines say how many more of them would.
    """
    width, unit = max(map(len, summary["verdict"])), unit_of(table)
    lines = []
    if repetitions > 1:
        few = _FEW.format(unit=unit)
        lines.append(f"Intervals are of bootstrap resamples of {_of_repetitions(repetitions)}. {few}\n")
    undecided = table[table["verdict"] == Verdict.UNDECIDED]
    for claim in summary.to_dict("records"):
        lines.append(f"{claim['verdict']:{width}}  {claim['statement']}")
        if claim["lacks"]:
            lines.append(f"{'':{width}}    add {claim['lacks']}")
        for row in undecided[undecided["claim"] == claim["claim"]].to_dict("records"):
            where = f"undecided on {row['dataset']} in {row['suite']} with {row[unit]} {unit}"
            lines.append(f"{'':{width}}    {where}; more that would decide it: {more_seeds_text(row)}")
    if cure := how_to_decide(table, config):
        told = int((undecided[f"more_{unit}"] < math.inf).sum())
        lines.append(f"\nTo decide {told} of the {len(undecided)} undecided verdicts, if values stay where they are:")
        lines += [f"    {line}" for line in cure]
    return "\n".join(lines)


def judging_rule(settings: ClaimsConfig, repetitions: int = 1) -> str:
    """Return what claims are about, and which verdict they get where.

    Args:
        settings: How claims were judged.
        repetitions: How often the study was run.
    """
    unit, single = ("seeds", "runs") if repetitions == 1 else ("repetitions", "repetitions")
    drawn = "the seeds" if repetitions == 1 else _of_repetitions(repetitions)
    return (
        "Quantities are ratios (÷) or differences (−) of medians over seeds, with "
        f"{100 * settings.confidence:g}% percentile intervals of {settings.resamples} bootstrap resamples of {drawn}, "
        "the same for all runs of a dataset, as runs of one seed begin with the same network. A claim is *supported* "
        "where the whole interval is within what it allows, *refuted* where all of it is beyond, and *undecided* "
        f"otherwise. {_FEW.format(unit=unit)} *Comparable* means a ratio of at most {1 + settings.margin:g}; *by a "
        f"margin*, of at least that; *matters little*, of at most {settings.flatness:g}. Performance is the test error "
        "for classes and the test loss for real targets, the lower the better. Diverged runs count as infinitely bad; "
        "how their learning rates and overfitting would have gone on is not known. "
        f"*More {unit}* would decide what is undecided: an estimate, by which the value stays where it is and its "
        f"interval shrinks as one over the root of the number of {unit} (of a ratio, on the logarithmic scale); about "
        f"half of such cases are then decided. It is *at least 1* for single {single}, which have no interval, and "
        "*unknown* where an interval has no end. Each interval is for itself: of quantities that are exactly at their "
        "limits, one in forty is found on either side by chance."
    )


def _of_repetitions(repetitions: int) -> str:
    return f"the {repetitions} repetitions of the study, searches included, and then of the seeds of each"


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    rows, unit = table.to_dict("records"), unit_of(table)
    value = "Value [interval]" if unit == "seeds" else f"Value [interval over {unit}]"
    return pd.DataFrame(
        {
            "Claim": table["statement"],
            "Suite": table["suite"],
            "Dataset": table["dataset"],
            "Quantity": table["quantity"],
            value: [f"{row['estimate']:.3g} [{row['lower']:.3g}, {row['upper']:.3g}]" for row in rows],
            "Wanted": [f"{row['relation']} {row['limit']:.3g}" for row in rows],
            "Verdict": table["verdict"],
            **{name.capitalize(): table[name] for name in ("seeds", "repetitions") if name in table},
            f"More {unit}": [more_seeds_text(row) for row in rows],
        }
    )


def _shown_summary(summary: pd.DataFrame) -> pd.DataFrame:
    counts = {str(verdict).capitalize(): summary[str(verdict)] for verdict in Verdict}
    return pd.DataFrame(
        {"Claim": summary["statement"], "Verdict": summary["verdict"], **counts, "Lacks": summary["lacks"]}
    )


def _markdown(table: pd.DataFrame, summary: pd.DataFrame, rule: str) -> str:
    parts = [
        "# The paper's claims, and what this study says\n",
        f"{rule}\n",
        f"{SUMMARY_RULE}\n\n{_as_markdown(_shown_summary(summary))}",
    ]
    for key, rows in table.groupby("claim", sort=False):
        parts.append(f"## {rows['statement'].iloc[0]}\n")
        parts.append(f"{_as_markdown(_shown(rows).drop(columns='Claim'))}\n`{key}` in the CSV.\n")
    silent = summary[summary["verdict"] == NOT_WEIGHED]
    if len(silent):
        parts.append("## Not weighed, and what to add to the configuration\n")
        parts.append("\n".join(f"- {row['statement']} Add {row['lacks']}." for row in silent.to_dict("records")) + "\n")
    return "\n".join(parts)


def _as_markdown(shown: pd.DataFrame) -> str:
    return str(in_markdown(shown).to_markdown(index=False, disable_numparse=True)) + "\n"
