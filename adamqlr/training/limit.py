"""Where a run ends."""

from typing import NamedTuple


class Limit(NamedTuple):
    """Where a run ends; whichever comes first.

    Attributes:
        steps: Optimizer steps, or None.
        seconds: Training seconds, or None.
    """

    steps: int | None = None
    seconds: float | None = None
