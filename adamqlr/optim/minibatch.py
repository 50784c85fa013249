"""The step of optimizers that see one gradient a minibatch."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from adamqlr.optim.dispatch import has_own_passes, network_of
from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.losses import Loss


class GradientInfo(NamedTuple):
    """What one step found, as 0-d tensors on the parameters' device; of shape (members,) for networks side by side.

    Attributes:
        loss: L(θ; B) before the step.
        lr: α, the learning rate taken.
    """

    loss: Tensor
    lr: Tensor


def check_not_empty(inputs: Tensor) -> None:
    """Raise a ValueError where a minibatch has no rows."""
    if len(inputs) == 0:
        raise ValueError("the minibatch is empty")


class Gradients(Protocol):
    """Gradients for PyTorch's own optimizers.

    Attributes:
        parameters: What the optimizer moves.
        members: () for one network, (members,) for several side by side.
    """

    parameters: list[nn.Parameter]
    members: torch.Size

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Leave g = ∇L(θ; B) in the parameters' ``grad`` and return L(θ; B), a number for each network.

        Raises:
            ValueError: The minibatch is empty.
        """
        ...


def gradients_of(model: nn.Module, loss: Loss) -> Gradients:
    """Return how a network's gradients are computed; for one with passes of its own θ is a single parameter.

    Raises:
        ValueError: Nothing is trainable.
    """
    return _FlatGradients(model, loss) if has_own_passes(model, loss) else _SeparateGradients(model, loss)


class _SeparateGradients:
    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self._model, self._loss = model, loss
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.members = torch.Size([])
        if not self.parameters:
            raise ValueError("the model has no trainable parameters")

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        check_not_empty(inputs)
        # On CUDA gradients stay in one place, where every captured graph leaves them; elsewhere they make room.
        in_place = inputs.is_cuda
        if not in_place:
            for parameter in self.parameters:
                parameter.grad = None
        with torch.enable_grad():
            value = self._loss(self._model(inputs), targets)
            gradients = torch.autograd.grad(value, self.parameters, allow_unused=True)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            if in_place and gradient is not None and parameter.grad is not None:
                parameter.grad.copy_(gradient)
            else:
                parameter.grad = gradient
        return value.detach()


class _FlatGradients:
    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self._flat = FlatParameters(model)
        self._network = network_of(model, loss, self._flat)
        self.members = self._flat.members
        theta = nn.Parameter(self._flat.buffer)
        theta.grad = self._network.gradient.buffer
        self.parameters = [theta]

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        check_not_empty(inputs)
        self._flat.check_bound()
        return self._network.differentiate(inputs, targets)
