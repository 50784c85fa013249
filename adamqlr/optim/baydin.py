"""Hypergradient descent on SGD's learning rate (Baydin et al., ICLR 2018, arXiv:1703.04782)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.dispatch import network_of
from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.losses import Loss, resolve_loss
from adamqlr.optim.minibatch import GradientInfo, check_not_empty
from adamqlr.optim.options import MemberTensors, members_of, nonnegative
from adamqlr.optim.watched import WatchedOptimizer


class BaydinSGD(WatchedOptimizer):
    """SGD whose learning rate follows its own gradient: α_t = α_{t−1} + β g_tᵀ g_{t−1}, θ ← θ − α_t g_t.

    Networks side by side may each have their own ``lr`` and ``hypergradient_lr``, of shape (members,).

    Args:
        model: The module to train.
        loss: As for :class:`adamqlr.AdamQLR`.
        lr: Initial learning rate α₀.
        hypergradient_lr: β.

    Raises:
        ValueError: A learning rate is negative.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: str | nn.Module | Loss,
        *,
        lr: float | Sequence[float] | Tensor,
        hypergradient_lr: float | Sequence[float] | Tensor,
    ) -> None:
        options = nonnegative(members_of(model), lr=lr, hypergradient_lr=hypergradient_lr)
        self.model, self.loss = model, resolve_loss(loss)
        self._flat = FlatParameters(model)
        super().__init__(self._flat.parameters, {"hypergradient_lr": options["hypergradient_lr"]})
        self._network = network_of(model, self.loss, self._flat)
        self._lr = self._flat.scalar(options["lr"])
        self._operands = MemberTensors(self._lr)
        self._last_gradient = self._flat.zeros()
        self._publish_state()

    def _take_step(self, inputs: Tensor, targets: Tensor) -> GradientInfo:
        check_not_empty(inputs)
        self._flat.check_bound()
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

    def _publish_state(self) -> None:
        views = self._flat.views(self._last_gradient)
        for parameter, view in zip(self._flat.parameters, views, strict=True):
            self.state[parameter] = {"last_gradient": view}
        self.param_groups[0]["lr"] = self._lr

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state that ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        self._flat.gather([self.state[p]["last_gradient"] for p in self._flat.parameters], out=self._last_gradient)
        self._lr.copy_(self.param_groups[0]["lr"])
        self._publish_state()
