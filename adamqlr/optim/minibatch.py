"""The step of optimizers that see one gradient a minibatch."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from adamqlr.optim.losses import Loss


class GradientInfo(NamedTuple):
    """What one step found, as 0-d tensors on the parameters' device.

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


def backward_pass(
    optimizer: torch.optim.Optimizer, model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor
) -> Tensor:
    """Leave g = ∇L(θ; B) in the parameters' ``grad`` and return L(θ; B), a 0-d tensor.

    Raises:
        ValueError: The minibatch is empty.
    """
    check_not_empty(inputs)
    optimizer.zero_grad(set_to_none=True)
    with torch.enable_grad():
        value = loss(model(inputs), targets)
        value.backward()
    return value.detach()


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen.

    Raises:
        ValueError: There are none.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("the model has no trainable parameters")
    return parameters
