"""Stochastic gradient descent, as :class:`torch.optim.SGD`, with the study's step."""

import torch
from torch import Tensor, nn

from adamqlr.optim.losses import Loss, resolve_loss
from adamqlr.optim.minibatch import GradientInfo, gradients_of


class SGD(torch.optim.SGD):
    """:class:`torch.optim.SGD` whose step runs the forward and backward passes itself.

    Args:
        model: The module to train.
        loss: As for :class:`adamqlr.AdamQLR`.
        lr: Learning rate α.
        momentum: Momentum; 0 for none.
        weight_decay: L2 penalty, added to the gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: str | nn.Module | Loss,
        *,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.model, self.loss = model, resolve_loss(loss)
        self._gradients = gradients_of(model, self.loss)
        parameters = self._gradients.parameters
        super().__init__(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)
        self._lr = torch.tensor(lr, device=parameters[0].device).expand(self._gradients.members)

    def step(self, inputs: Tensor, targets: Tensor) -> GradientInfo:  # type: ignore[override]
        """Take one step on a minibatch."""
        with torch.no_grad():
            loss = self._gradients(inputs, targets)
        super().step()
        return GradientInfo(loss, self._lr)
