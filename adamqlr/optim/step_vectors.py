"""V: the vectors that a step moves along."""

from collections.abc import Sequence

from torch import Tensor

from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.state import State


class StepVectors:
    """v₁, which a direction proposes, and where momentum is wanted v₂, the previous update; and the step along them.

    Args:
        flat: The parameters.
        state: Where the previous update lives.

    Attributes:
        vectors: V, of shape (…, n) each.
        views: V as a tensor for each parameter.
    """

    def __init__(self, flat: FlatParameters, state: State) -> None:
        self._flat, self._state = flat, state
        self._update: Tensor | None = None
        self.vectors = [flat.zeros()]
        self.views = [flat.views(self.vectors[0])]

    def use_update(self, wanted: bool) -> None:
        """Have v₂ among them or not."""
        if wanted and self._update is None:
            self._update = self._state.vector("update", outlives_freezing=False)
        elif not wanted and self._update is not None:
            # Once momentum is wanted again, this is no longer the previous update.
            self._update.zero_()
        update = [self._update] if wanted and self._update is not None else []
        self.vectors = [self.vectors[0], *update]
        self.views = [self.views[0], *map(self._flat.views, update)]

    def forget_update(self, where: Tensor) -> None:
        """Set v₂ to zero where the condition, of shape (…), holds."""
        for vector in self.vectors[1:]:
            vector.masked_fill_(where.unsqueeze(-1), 0)

    def move(self, weights: Sequence[Tensor]) -> None:
        """Set θ ← θ + V w, and v₂ to that update."""
        if self._flat.members:
            weights = [weight.unsqueeze(-1) for weight in weights]
        if len(weights) == 1:
            self._flat.buffer.addcmul_(self.vectors[0], weights[0])
        else:
            update = self.vectors[1].mul_(weights[1]).addcmul_(self.vectors[0], weights[0])
            self._flat.buffer.add_(update)
