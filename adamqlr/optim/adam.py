"""Adam, as :class:`torch.optim.Adam`, with the study's step."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from adamqlr.optim.base import AnyLoss, MinibatchOptimizer
from adamqlr.optim.directions.adam import resume_moments, unused_moments_stay
from adamqlr.optim.flat import LastNumber
from adamqlr.optim.info import GradientInfo
from adamqlr.optim.options import MemberTensors, differ, nonnegative
from adamqlr.optim.passes.perceptron import members_of
from adamqlr.optim.state import State
from adamqlr.optim.torch_private import adam_written_out, fused_adam


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

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, **nonnegative(self._flat.members, lr=options["lr"], eps=options["eps"])}

    def _take_step(self, inputs: Any, targets: Any) -> GradientInfo:
        group, theta = self.param_groups[0], self._flat.buffer
        loss = self._network.differentiate(inputs, targets)
        gradient = self._network.gradient.buffer
        self._step.add_(1)
        lr, betas, eps = group["lr"], group["betas"], group["eps"]
        moments, used = (self._moment, self._second_moment), self._network.gradient
        with used.unused_stay(theta), unused_moments_stay(used, moments, betas, self._step):
            tensors = theta, gradient, *moments, self._step
            if differ(lr, eps):
                # The fused kernel would take a call for each network.
                column = self._operands.column
                adam_written_out(*tensors, lr=column(lr), betas=betas, eps=column(eps))
            else:
                fused_adam(*tensors, lr=lr, betas=betas, eps=eps)
        return GradientInfo(loss, self._rates(group["lr"]))
