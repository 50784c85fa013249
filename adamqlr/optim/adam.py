"""Adam, as :class:`torch.optim.Adam`, with the study's step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.losses import Loss, resolve_loss
from adamqlr.optim.minibatch import GradientInfo, gradients_of
from adamqlr.optim.options import MemberTensors, differ, first_of, nonnegative


class Adam(torch.optim.Adam):
    """:class:`torch.optim.Adam` (fused) whose step runs the forward and backward passes itself.

    Networks side by side may each have their own ``lr`` and ``eps``, of shape (members,).

    Args:
        model: The module to train.
        loss: As for :class:`adamqlr.AdamQLR`.
        lr: Learning rate α.
        betas: Decay rates β₁, β₂.
        eps: ε.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: str | nn.Module | Loss,
        *,
        lr: float | Sequence[float] | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float | Sequence[float] | Tensor = 1e-8,
    ) -> None:
        self.model, self.loss = model, resolve_loss(loss)
        self._gradients = gradients_of(model, self.loss)
        options = nonnegative(self._gradients.members, lr=lr, eps=eps)
        parameters = self._gradients.parameters
        device = parameters[0].device
        # PyTorch takes numbers only.
        first: dict[str, Any] = {name: first_of(option) for name, option in options.items()}
        super().__init__(parameters, betas=betas, **first, fused=True, capturable=device.type == "cuda")
        self.param_groups[0].update(options)
        self._differ = differ(*options.values())
        self._operands = MemberTensors(parameters[0].detach())
        self._lr = torch.tensor(options["lr"], device=device).expand(self._gradients.members)

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
        beta1, beta2 = group["betas"]
        state = self.state[theta]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=theta.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(theta), torch.zeros_like(theta)
        moment = state["exp_avg"].lerp_(theta.grad, 1 - beta1)
        second_moment = state["exp_avg_sq"].mul_(beta2).addcmul_(theta.grad, theta.grad, value=1 - beta2)
        # In single precision 1 − β₂ᵗ would lose its digits.
        step = state["step"].add_(1).double()
        correction, second_correction = 1 - beta1**step, 1 - beta2**step
        denominator = (second_moment / second_correction).sqrt_().add_(column(group["eps"]))
        theta.addcdiv_(moment * (column(group["lr"]) / correction), denominator, value=-1.0)
