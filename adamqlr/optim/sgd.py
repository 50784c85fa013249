"""Stochastic gradient descent, as :class:`torch.optim.SGD`, with the study's step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.losses import Loss, resolve_loss
from adamqlr.optim.minibatch import GradientInfo, gradients_of
from adamqlr.optim.options import MemberTensors, differ, first_of, nonnegative


class SGD(torch.optim.SGD):
    """:class:`torch.optim.SGD` whose step runs the forward and backward passes itself.

    Networks side by side may each have their own ``lr``, ``momentum`` and ``weight_decay``, of shape (members,).

    Args:
        model: The module to train.
        loss: As for :class:`adamqlr.AdamQLR`.
        lr: Learning rate α.
        momentum: Momentum; 0 for none.
        weight_decay: L2 penalty, added to the gradient.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: str | nn.Module | Loss,
        *,
        lr: float | Sequence[float] | Tensor,
        momentum: float | Sequence[float] | Tensor = 0.0,
        weight_decay: float | Sequence[float] | Tensor = 0.0,
    ) -> None:
        self.model, self.loss = model, resolve_loss(loss)
        self._gradients = gradients_of(model, self.loss)
        options = nonnegative(self._gradients.members, lr=lr, momentum=momentum, weight_decay=weight_decay)
        parameters = self._gradients.parameters
        # PyTorch takes numbers only.
        first: dict[str, Any] = {name: first_of(option) for name, option in options.items()}
        super().__init__(parameters, **first, fused=True)
        self.param_groups[0].update(options)
        self._differ = differ(*options.values())
        self._operands = MemberTensors(parameters[0].detach())
        self._lr = torch.tensor(options["lr"], device=parameters[0].device).expand(self._gradients.members)

    def step(self, inputs: Tensor, targets: Tensor) -> GradientInfo:  # type: ignore[override]
        """Take one step on a minibatch."""
        with torch.no_grad():
            loss = self._gradients(inputs, targets)
            if self._differ:
                self._move_members()
        if not self._differ:
            super().step()
        return GradientInfo(loss, self._lr)

    def _move_members(self) -> None:
        """Move networks whose options differ, for which PyTorch would take a call each."""
        group, column = self.param_groups[0], self._operands.column
        (theta,) = group["params"]
        direction = theta.grad
        if group["weight_decay"] != 0:
            direction = direction + theta * column(group["weight_decay"])
        if group["momentum"] != 0:
            state = self.state[theta]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(theta)
            direction = state["momentum_buffer"].mul_(column(group["momentum"])).add_(direction)
        theta.sub_(direction * column(group["lr"]))
