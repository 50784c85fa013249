"""The gradient itself as a direction: QLR over it is steepest descent with K-FAC's heuristics."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from adamqlr.optim.flat import FlatGradient, FlatParameters
from adamqlr.optim.state import State


class GradientDirection:
    """d = g."""

    defaults: Mapping[str, Any] = {}
    capturable = True

    def bind(self, flat: FlatParameters, state: State) -> None:
        """Do nothing: there is no state."""

    def propose(self, gradient: FlatGradient, damping: Tensor, out: Tensor) -> None:
        """Write g into ``out``."""
        out.copy_(gradient.buffer)
