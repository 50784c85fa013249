"""Adam, as :class:`torch.optim.Adam`, with the study's step."""

import torch
from torch import Tensor, nn

from adamqlr.optim.losses import Loss, resolve_loss
from adamqlr.optim.minibatch import GradientInfo, gradients_of


class Adam(torch.optim.Adam):
    """:class:`torch.optim.Adam` (fused) whose step runs the forward and backward passes itself.

    Args:
        model: The module to train.
        loss: As for :class:`adamqlr.AdamQLR`.
        lr: Learning rate α.
        betas: Decay rates β₁, β₂.
        eps: ε.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: str | nn.Module | Loss,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.model, self.loss = model, resolve_loss(loss)
        self._gradients = gradients_of(model, self.loss)
        parameters = self._gradients.parameters
        device = parameters[0].device
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, fused=True, capturable=device.type == "cuda")
        self._lr = torch.tensor(lr, device=device).expand(self._gradients.members)

    def step(self, inputs: Tensor, targets: Tensor) -> GradientInfo:  # type: ignore[override]
        """Take one step on a minibatch."""
        with torch.no_grad():
            loss = self._gradients(inputs, targets)
        super().step()
        return GradientInfo(loss, self._lr)
