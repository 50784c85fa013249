"""Which steps are recorded."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class RecordSchedule:
    """Every step at first, then steps that grow geometrically.

    The recorded steps do not depend on a run's length, so that runs of any length share theirs.

    Attributes:
        every: All steps up to this one are recorded.
        growth: Factor between recorded steps from there on.
    """

    every: int
    growth: float

    def next_after(self, step: int) -> int:
        """Return the first recorded step after ``step``."""
        recorded = self.every
        if step < recorded:
            return step + 1
        while recorded <= step:
            recorded = max(recorded + 1, math.ceil(recorded * self.growth))
        return recorded
