"""What bounds, a rescaling and schedules leave of the step that the model chose."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from adamqlr.optim.arithmetic import StepArithmetic
from adamqlr.optim.options import MemberOption, MemberTensors


class Limits:
    """Shortens steps.

    Args:
        operands: Makes of options what multiplies weights.
        arithmetic: Computes weights.
    """

    def __init__(self, operands: MemberTensors, arithmetic: StepArithmetic) -> None:
        self._operands, self._arithmetic = operands, arithmetic

    def of_lr(self, first: Tensor, group: Mapping[str, Any], factor: MemberOption | Tensor) -> Tensor:
        """Clip and rescale w₁ = −α, and multiply it by what a scheduler says."""
        if group["lr_clipping"] is not None:
            limit: Any = self._operands(group["lr_clipping"])
            first = first.clamp(-limit, limit)
        if group["lr_rescaling"] != 1:
            first = first * self._operands(group["lr_rescaling"])
        # What is on a device is not waited for.
        if isinstance(factor, Tensor) or factor != 1:
            first = first * self._operands(factor)
        return first

    def of_step(
        self,
        weights: Sequence[Tensor],
        forms: Sequence[Tensor],
        group: Mapping[str, Any],
        factor: MemberOption | Tensor,
    ) -> Sequence[Tensor]:
        """Return w with what is left of w₁, beside which momentum that the model chose could climb if it stayed.

        Args:
            weights: w.
            forms: What :func:`adamqlr.optim.heuristics.quadratic_forms` returned.
            group: The options.
            factor: What a scheduler says.
        """
        first = self.of_lr(weights[0], group, factor)
        if first is weights[0]:
            return weights
        if len(weights) == 1 or group["momentum"] is not None:
            return [first, *weights[1:]]
        if not group["choose_lr"]:
            return self._arithmetic.momentum_beside(first, forms)
        # The best momentum beside it would make up for what a limit or a schedule has taken away.
        return self._arithmetic.limited(weights, first)
