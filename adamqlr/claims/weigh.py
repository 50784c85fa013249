"""What a study says of each claim, and the one verdict that follows for the claim."""

import math
from collections import Counter
from collections.abc import Collection
from typing import Any

import pandas as pd

from adamqlr.claims.judge import Verdict
from adamqlr.claims.more_seeds import setting_of
from adamqlr.claims.statements import claims_of
from adamqlr.results.study import Study

COLUMNS = (
    "claim",
    "statement",
    "suite",
    "dataset",
    "quantity",
    "scale",
    "estimate",
    "lower",
    "upper",
    "relation",
    "limit",
    "verdict",
    "seeds",
)
# Of a study, and of repetitions of one.
_MORE_SEEDS, _MORE_REPETITIONS = ("more_seeds", "setting"), ("repetitions", "more_repetitions")

MIXED, NOT_WEIGHED = "mixed", "not weighed"
SUMMARY_RULE = (
    "A claim as a whole is *supported* where it is supported at least once and nowhere refuted, *refuted* where it is "
    "refuted at least once and nowhere supported, *mixed* where both happen, and *undecided* where neither does."
)


def weigh(study: Study) -> pd.DataFrame:
    """Return one row for each claim and each suite, dataset or sensitivity study that has something to say on it.

    ``more_seeds`` is NaN where a verdict is decided, or where no number can be told
    (:func:`adamqlr.results.bootstrap.units_to_exclude`), and ``setting`` what to raise for them. Where the study is
    repeated, there are ``repetitions`` and ``more_repetitions`` instead, and ``seeds`` are those of all together.
    """
    rows = []
    columns = [*COLUMNS, *(_MORE_REPETITIONS if study.others else _MORE_SEEDS)]
    for claim in claims_of(study.config):
        for item in claim.weigh(study):
            judgment = item.judgment
            is_open = judgment.verdict is Verdict.UNDECIDED
            more = item.units_to_decide - item.sample.units if is_open else math.nan
            rows.append(
                {
                    "claim": claim.key,
                    "statement": claim.statement,
                    "suite": item.suite,
                    "dataset": item.dataset,
                    "quantity": item.quantity,
                    "scale": "log" if judgment.is_ratio else "linear",
                    "estimate": judgment.estimate,
                    "lower": judgment.lower,
                    "upper": judgment.upper,
                    "relation": judgment.relation,
                    "limit": judgment.limit,
                    "verdict": str(judgment.verdict),
                    "seeds": item.sample.seeds,
                    "repetitions": item.sample.repetitions,
                    "more_seeds": more,
                    "more_repetitions": more,
                    "setting": setting_of(item, study.config) if is_open else "",
                }
            )
    return pd.DataFrame(rows, columns=columns)


def summarize(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each claim: its verdict by :data:`SUMMARY_RULE`, the counts, and what the study lacks.

    Args:
        study: The study.
        table: What :func:`weigh` returned of it.
    """
    rows: list[dict[str, Any]] = []
    for claim in claims_of(study.config):
        verdicts = table.loc[table["claim"] == claim.key, "verdict"].tolist()
        counts = Counter(verdicts)
        rows.append(
            {
                "claim": claim.key,
                "statement": claim.statement,
                "verdict": summary_verdict(verdicts),
                **{str(verdict): counts[verdict] for verdict in Verdict},
                "lacks": "" if verdicts else claim.lacks(study),
            }
        )
    return pd.DataFrame(rows)


def summary_verdict(verdicts: Collection[str]) -> str:
    """Return the verdict that follows from those of several datasets and suites, by :data:`SUMMARY_RULE`."""
    if not verdicts:
        return NOT_WEIGHED
    found = [str(verdict) for verdict in (Verdict.SUPPORTED, Verdict.REFUTED) if verdict in verdicts]
    return MIXED if len(found) > 1 else found[0] if found else str(Verdict.UNDECIDED)
