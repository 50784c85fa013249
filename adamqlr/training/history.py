"""What one run recorded."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adamqlr.training.metrics import METRICS


@dataclass
class History:
    """The records of one run.

    Attributes:
        seed: The run's seed.
        steps: Optimizer steps taken before each record; 0 is the initial network.
        times: Training seconds before each record, evaluation not counted.
        values: One row a record, in the order of :data:`adamqlr.training.metrics.METRICS`; NaN where a metric is not
            defined, as the minibatch's metrics are before the first step.
        parameters: The parameters at each record, for problems with so few that their trajectory is of interest.
        diverged: Whether the run ended early because its loss or parameters were no longer finite. The last record
            is then the one at which that was found.
        evaluation_seconds: What the evaluation of all sets takes, the mean over the records; of runs side by side, what
            it takes one of them alone.
    """

    seed: int
    steps: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)
    parameters: list[list[float]] = field(default_factory=list)
    diverged: bool = False
    evaluation_seconds: float = 0.0

    def append(
        self,
        step: int,
        time: float,
        metrics: dict[str, float],
        parameters: list[float] | None = None,
        evaluation_seconds: float = 0.0,
    ) -> None:
        """Add one record; metrics that are not given are NaN."""
        self.evaluation_seconds += (evaluation_seconds - self.evaluation_seconds) / (len(self.steps) + 1)
        self.steps.append(step)
        self.times.append(time)
        self.values.append([metrics.get(name, float("nan")) for name in METRICS])
        if parameters is not None:
            self.parameters.append(parameters)

    def metric(self, name: str) -> NDArray[np.float64]:
        """Return one metric at every record."""
        return np.asarray(self.values, dtype=np.float64).reshape(-1, len(METRICS))[:, list(METRICS).index(name)]

    def state_dict(self) -> dict[str, Any]:
        """Return plain Python values that :meth:`from_state_dict` takes up again."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "History":
        """Rebuild a history; metrics that it does not have yet, in one of an earlier version, are NaN."""
        missing = len(METRICS) - len(state["values"][0]) if state["values"] else 0
        return cls(**{**state, "values": [[*row, *[float("nan")] * missing] for row in state["values"]]})
