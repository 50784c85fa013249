"""The claims that a factorial is about: that some heuristics help a direction."""

from collections.abc import Callable, Iterator
from functools import partial

from adamqlr.claims.evidence import Evidence, pairwise
from adamqlr.results.pairs import Study
from adamqlr.study.config import StudyConfig


def heuristics_claims(config: StudyConfig) -> Iterator[tuple[str, str, Callable[[Study], Iterator[Evidence]]]]:
    """Yield key, statement and evidence of each claim: each combination of heuristics against a factorial's first.

    A combination helps a direction where its runs end no worse than with the first.
    """
    for factorial in config.factorials.values():
        first, *others = factorial.heuristics
        for direction in factorial.directions:
            for heuristics in others:
                subject, reference = (factorial.optimizer_of(direction, name) for name in (heuristics, first))
                what, than = factorial.heuristics_label(heuristics), factorial.heuristics_label(first)
                of = factorial.direction_label(direction)
                statement = f"The heuristics “{what}” help {of}: it ends no worse than with “{than}”."
                yield subject, statement, partial(pairwise, subject=subject, reference=reference)
