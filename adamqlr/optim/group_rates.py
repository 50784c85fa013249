"""Learning rates of parameter groups, as schedulers set them: factors of what the model chooses."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from adamqlr.optim.options import MemberOption, MemberTensors, differ, require
from adamqlr.optim.step_vectors import StepVectors
from adamqlr.optim.torch_private import scale_all


class GroupRates:
    """Scales what each group has of a step.

    Args:
        vectors: What the step moves along.
        operands: Turns numbers of networks side by side into tensors.
        everywhere: True, of shape (…).
    """

    def __init__(self, vectors: StepVectors, operands: MemberTensors, everywhere: Tensor) -> None:
        self._vectors, self._operands, self._everywhere = vectors, operands, everywhere

    def scale(
        self, groups: Sequence[Mapping[str, Any]], indices_by_group: Sequence[Sequence[int]]
    ) -> MemberOption | Tensor:
        """Scale each group's part of v₁ by its learning rate, relative to the largest.

        Args:
            groups: The parameter groups.
            indices_by_group: Which parameters are theirs.

        Returns:
            The largest.
        """
        if len(groups) == 1:
            return self._unless_paused(groups[0]["lr"])
        # Groups of which nothing is trained have no part of v₁.
        trained = [pair for pair in zip(groups, indices_by_group, strict=True) if pair[1]]
        largest, shares = common_rate([group["lr"] for group, _ in trained])
        for share, (_, indices) in zip(shares, trained, strict=False):
            # Momentum has its share already, but what is to stay now may have moved before.
            for views in self._vectors.views if share == 0 else self._vectors.views[:1]:
                scale_all([views[index] for index in indices], share)
        return self._unless_paused(largest)

    def _unless_paused(self, lr: MemberOption | Tensor) -> MemberOption | Tensor:
        """Return a learning rate; where it is 0, nothing moves, and so there is no previous update either."""
        if isinstance(lr, Tensor) and lr.device == self._everywhere.device:
            # Nobody waits for its number.
            self._vectors.forget_update(lr == 0)
        elif isinstance(lr, tuple):
            if 0 in lr:
                paused: Any = self._operands(lr) == 0
                self._vectors.forget_update(paused)
        else:
            # NumPy's numbers are none of Python's; what a schedule's rounding leaves below zero is nothing.
            lr = max(float(lr), 0.0)
            if lr == 0:
                self._vectors.forget_update(self._everywhere)
        return lr


def common_rate(rates: Sequence[Any]) -> tuple[MemberOption, list[float]]:
    """Return the largest learning rate of parameter groups, and each one's share of it: none where all are the same.

    Raises:
        ValueError: Networks side by side have rates of their own, which differ between groups.
    """
    if differ(*rates):
        alike = all(rate == rates[0] for rate in rates)
        require(alike, "lr of networks side by side", "the same in all parameter groups", rates)
        return rates[0], []
    require(None not in rates, "lr of a parameter group", "a number, a factor of what the model chooses", None)
    largest = max(rates)
    if largest == 0:
        # What a schedule's rounding leaves below zero is nothing.
        return 0.0, []
    return largest, [] if min(rates) == largest else [rate / largest for rate in rates]
