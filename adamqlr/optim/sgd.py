"""Stochastic gradient descent, as :class:`torch.optim.SGD`, with the study's step."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from adamqlr.optim.base import AnyLoss, MinibatchOptimizer
from adamqlr.optim.flat import LastNumber
from adamqlr.optim.info import GradientInfo
from adamqlr.optim.options import MemberTensors, differ, nonnegative
from adamqlr.optim.passes.perceptron import members_of
from adamqlr.optim.state import State
from adamqlr.optim.torch_private import fused_sgd


class SGD(MinibatchOptimizer):
    """:class:`torch.optim.SGD` (fused) whose step runs the forward and backward passes itself.

    Networks side by side may each have their own ``lr``, ``momentum`` and ``weight_decay``, of shape (members,).

    Args:
        model: The module to train.
        loss: As for :class:`adamqlr.QLR`.
        lr: Learning rate α.
        momentum: Momentum; 0 for none.
        weight_decay: L2 penalty, added to the gradient.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: AnyLoss,
        *,
        lr: float | Sequence[float] | Tensor,
        momentum: float | Sequence[float] | Tensor = 0.0,
        weight_decay: float | Sequence[float] | Tensor = 0.0,
    ) -> None:
        options = nonnegative(members_of(model), lr=lr, momentum=momentum, weight_decay=weight_decay)
        super().__init__(model, loss, options)

    def _bind(self, state: State) -> None:
        group = self.param_groups[0]
        self._buffer = state.vector("momentum_buffer") if group["momentum"] != 0 else None
        self._operands = MemberTensors(self._flat.buffer)
        self._rates = LastNumber(self._flat)

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        return nonnegative(self._flat.members, **options)

    def _take_step(self, inputs: Any, targets: Any) -> GradientInfo:
        group, theta = self.param_groups[0], self._flat.buffer
        loss = self._network.differentiate(inputs, targets)
        gradient = self._network.gradient.buffer
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        if self._buffer is None and momentum != 0:
            # Somebody has set it since, as schedulers do that cycle it.
            self._buffer = self._state.vector("momentum_buffer")
        with self._network.gradient.unused_stay(theta, *([] if self._buffer is None else [self._buffer])):
            if differ(lr, momentum, decay):
                self._move_members(theta, gradient)
            else:
                # A buffer of zeros takes the first gradient as PyTorch's takes it.
                fused_sgd(theta, gradient, self._buffer, lr=lr, momentum=momentum, weight_decay=decay)
        return GradientInfo(loss, self._rates(lr))

    def _move_members(self, theta: Tensor, direction: Tensor) -> None:
        """Move networks whose options differ, for which the fused kernel would take a call each."""
        group, column = self.param_groups[0], self._operands.column
        if group["weight_decay"] != 0:
            direction = direction + theta * column(group["weight_decay"])
        if self._buffer is not None:
            direction = self._buffer.mul_(column(group["momentum"])).add_(direction)
        theta.sub_(direction * column(group["lr"]))
