"""Hypergradient descent on SGD's learning rate (Baydin et al., ICLR 2018, arXiv:1703.04782)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.base import AnyLoss, MinibatchOptimizer
from adamqlr.optim.info import GradientInfo
from adamqlr.optim.options import MemberTensors, nonnegative
from adamqlr.optim.passes.perceptron import members_of
from adamqlr.optim.state import State


class BaydinSGD(MinibatchOptimizer):
    """SGD whose learning rate follows its own gradient: α_t = α_{t−1} + β g_tᵀ g_{t−1}, θ ← θ − α_t g_t.

    Networks side by side may each have their own ``lr`` and ``hypergradient_lr``, of shape (members,).

    Args:
        model: The module to train.
        loss: As for :class:`adamqlr.QLR`.
        lr: Initial learning rate α₀.
        hypergradient_lr: β.

    Raises:
        ValueError: A learning rate is negative.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: AnyLoss,
        *,
        lr: float | Sequence[float] | Tensor,
        hypergradient_lr: float | Sequence[float] | Tensor,
    ) -> None:
        super().__init__(model, loss, nonnegative(members_of(model), lr=lr, hypergradient_lr=hypergradient_lr))

    def _bind(self, state: State) -> None:
        self._lr = state.number("lr", 0.0)
        self._last_gradient = state.vector("last_gradient")
        self._operands = MemberTensors(self._lr)

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        return nonnegative(self._flat.members, **options)

    def _take_step(self, inputs: Any, targets: Any) -> GradientInfo:
        if self.param_groups[0]["lr"] is not self._lr:
            # Somebody has set it, as schedulers do.
            self._lr.copy_(torch.as_tensor(self.param_groups[0]["lr"], dtype=self._lr.dtype))
            self.param_groups[0]["lr"] = self._lr
        loss = self._network.differentiate(inputs, targets)
        gradient = self._network.gradient.buffer
        similarity = torch.linalg.vecdot(gradient, self._last_gradient)
        rate = self._operands(self.param_groups[0]["hypergradient_lr"])
        if isinstance(rate, Tensor):
            self._lr.addcmul_(similarity, rate)
        else:
            self._lr.add_(similarity, alpha=rate)
        self._flat.buffer.addcmul_(gradient, self._lr.unsqueeze(-1), value=-1.0)
        self._last_gradient.copy_(gradient)
        return GradientInfo(loss, self._lr.clone())
