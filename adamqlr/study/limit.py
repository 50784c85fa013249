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

    def in_steps(self, step_seconds: float) -> int:
        """Return the steps, at least 1, of a run to this limit whose steps take ``step_seconds`` each."""
        if self.seconds is None:
            assert self.steps is not None
            return self.steps
        by_time = max(1, round(self.seconds / step_seconds))
        return by_time if self.steps is None else min(self.steps, by_time)
