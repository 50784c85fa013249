"""Adam, as :class:`torch.optim.Adam`, with the study's step."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from adamqlr.optim.base import AnyLoss, MinibatchOptimizer
from adamqlr.optim.directions.adam import resume_moments
from adamqlr.optim.flat import LastNumber
from adamqlr.optim.info import GradientInfo
from adamqlr.optim.options import MemberTensors, differ, nonnegative
from adamqlr.optim.passes.perceptron import members_of
from adamqlr.optim.state import State
from adamqlr.optim.torch_private import fused_adam


class Adam(MinibatchOptimizer):
    """:class:`torch.optim.Adam` (fused) whose step runs the forward and backward passes itself.

    Networks side by side may each have their own ``lr`` and ``eps``, of shape (members,).

    Args:
        model: The module to train.
        loss: As for :class:`adamqlr.QLR`.
        lr: Learning rate α.
        betas: Decay rates β₁, β₂.
        eps: ε.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: AnyLoss,
        *,
        lr: float | Sequence[float] | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float | Sequence[float] | Tensor = 1e-8,
    ) -> None:
        options = nonnegative(members_of(model), lr=lr, eps=eps)
        super().__init__(model, loss, {**options, "betas": betas})

    def _bind(self, state: State) -> None:
        self._moment, self._second_moment = state.vector("exp_avg"), state.vector("exp_avg_sq")
        self._step = state.counter("step")
        resume_moments(self._flat, state, self._moment, self._second_moment)
        self._operands = MemberTensors(self._flat.buffer)
        self._rates = LastNumber(self._flat)

    def _take_step(self, inputs: Any, targets: Any) -> GradientInfo:
        group, theta = self.param_groups[0], self._flat.buffer
        loss = self._network.differentiate(inputs, targets)
        gradient = self._network.gradient.buffer
        self._step.add_(1)
        with self._network.gradient.unused_stay(theta, self._moment, self._second_moment):
            if differ(group["lr"], group["eps"]):
                self._move_members(theta, gradient)
            else:
                lr, betas, eps = group["lr"], group["betas"], group["eps"]
                fused_adam(theta, gradient, self._moment, self._second_moment, self._step, lr=lr, betas=betas, eps=eps)
        return GradientInfo(loss, self._rates(group["lr"]))

    def _move_members(self, theta: Tensor, gradient: Tensor) -> None:
        """Move networks whose options differ, for which the fused kernel would take a call each."""
        group, column = self.param_groups[0], self._operands.column
        beta1, beta2 = group["betas"]
        moment = self._moment.lerp_(gradient, 1 - beta1)
        second_moment = self._second_moment.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        # In single precision 1 − β₂ᵗ would lose its digits.
        step = self._step.double()
        correction, second_correction = 1 - beta1**step, 1 - beta2**step
        denominator = (second_moment / second_correction).sqrt_().add_(column(group["eps"]))
        theta.addcdiv_(moment * (column(group["lr"]) / correction), denominator, value=-1.0)
