"""The claims that a factorial is about: that some heuristics help a direction."""

from collections.abc import Iterator

from adamqlr.study.config import StudyConfig


def heuristics_claims(config: StudyConfig) -> Iterator[tuple[str, str, str]]:
    """Yield what each combination of heuristics is claimed to do, against a factorial's first.

    A combination helps a direction where its runs end no worse than with the first.

    Yields:
        The optimizer with the combination, the one that it is compared with, and the statement.
    """
    for factorial in config.factorials.values():
        first, *others = factorial.heuristics
        for direction in factorial.directions:
            for heuristics in others:
                subject, reference = (factorial.optimizer_of(direction, name) for name in (heuristics, first))
                what, than = factorial.heuristics_label(heuristics), factorial.heuristics_label(first)
                of = factorial.direction_label(direction)
                statement = f"The heuristics “{what}” help {of}: it ends no worse than with “{than}”."
                yield subject, reference, statement
