"""A network as optimizers see it: θ and g as flat vectors, and the loss around θ on one minibatch.

Any module can be differentiated by PyTorch (:class:`DifferentiatedNetwork`); :mod:`adamqlr.optim.dispatch` says which
modules have passes of their own.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from adamqlr.optim.curvature import (
    HessianLinearization,
    Linearization,
    fisher_quadratic_form,
    preserved_buffers,
)
from adamqlr.optim.flat import FlatGradient, FlatParameters
from adamqlr.optim.losses import Loss

Curvature = Literal["fisher", "hessian"]


class LocalModel(Protocol):
    """The loss on one minibatch around the parameters θ at which it was made.

    Attributes:
        loss: L(θ; B), a number for each network.
    """

    loss: Tensor

    def quadratic_form(self, direction: Sequence[Tensor]) -> Tensor:
        """Return dᵀ C d, a number for each network, for a direction of one tensor a parameter; called once."""
        ...

    def loss_after(self, lr: Tensor) -> Tensor:
        """Return L(θ + lr · d; B) for the direction d above, once the parameters have moved there."""
        ...


class Network(Protocol):
    """One network, or several of one architecture side by side. What it returns has no history.

    Attributes:
        flat: θ.
        gradient: g, as of the last call below.
    """

    flat: FlatParameters
    gradient: FlatGradient

    def differentiate(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Set g = ∇L(θ; B) and return L(θ; B), a number for each network."""
        ...

    def linearize(self, inputs: Tensor, targets: Tensor, curvature: Curvature) -> LocalModel:
        """Set g and return a model of the loss with the curvature C of that kind."""
        ...


class DifferentiatedNetwork:
    """Any module, differentiated by PyTorch.

    Args:
        model: The module.
        loss: The loss.
        flat: Its parameters.
    """

    def __init__(self, model: nn.Module, loss: Loss, flat: FlatParameters) -> None:
        self.model, self.loss, self.flat = model, loss, flat
        self.gradient = FlatGradient(flat)

    def differentiate(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Set g and return L(θ; B)."""
        with torch.enable_grad():
            value = self.loss(self.model(inputs), targets)
            gradients = torch.autograd.grad(value, self.flat.parameters, allow_unused=True, materialize_grads=True)
        self.gradient.assign(gradients)
        return value.detach()

    def linearize(self, inputs: Tensor, targets: Tensor, curvature: Curvature) -> LocalModel:
        """Set g and return a model of the loss."""
        linearization = Linearization if curvature == "fisher" else HessianLinearization
        with torch.enable_grad():
            local = linearization(self.model, self.loss, self.flat.parameters, inputs, targets)
        self.gradient.assign(local.gradients)
        return _DifferentiatedModel(self, local, inputs, targets)


class _DifferentiatedModel:
    def __init__(
        self,
        network: DifferentiatedNetwork,
        linearization: Linearization | HessianLinearization,
        inputs: Tensor,
        targets: Tensor,
    ) -> None:
        self._network, self._linearization = network, linearization
        self._inputs, self._targets = inputs, targets
        self.loss = linearization.loss

    def quadratic_form(self, direction: Sequence[Tensor]) -> Tensor:
        with torch.enable_grad():
            if isinstance(self._linearization, HessianLinearization):
                return self._linearization.quadratic_form(direction)
            return fisher_quadratic_form(self._linearization, self._network.loss, self._targets, [direction])[0, 0]

    def loss_after(self, lr: Tensor) -> Tensor:
        model = self._network.model
        with torch.no_grad(), preserved_buffers(model):
            return self._network.loss(model(self._inputs), self._targets)
