"""Losses with their Hessian in the network's outputs, the H of C = E[Jᵀ H J]."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional


@runtime_checkable
class Loss(Protocol):
    """What an optimizer asks of a loss: any object with these two methods will do."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the minibatch's mean loss, a 0-d tensor."""
        ...

    def hessian_vector_product(self, outputs: Tensor, targets: Tensor, vector: Tensor) -> Tensor:
        """Return H v, of the shape of ``outputs``, with H = ∂²loss/∂outputs² of exactly the loss above."""
        ...


class CrossEntropy:
    """Mean softmax cross-entropy of logits (batch, classes, …) and class indices (batch, …).

    For each target H = (diag(p) − p pᵀ) / targets with p the softmax probabilities; targets are rows · positions.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy, a 0-d tensor."""
        return functional.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)

    def hessian_vector_product(self, outputs: Tensor, targets: Tensor, vector: Tensor) -> Tensor:
        """Return H v, of the shape of ``outputs``."""
        probabilities = torch.softmax(outputs, dim=1)
        weighted = probabilities * vector
        count = outputs.numel() // outputs.shape[1]
        return (weighted - probabilities * weighted.sum(dim=1, keepdim=True)) / count


class SquaredError:
    """``scale`` · (ŷ − y)² averaged over all elements: H = 2 · scale / elements · I.

    ``scale`` ½ is the half-MSE of the paper, 1 is :class:`torch.nn.MSELoss`.
    """

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean scaled squared error, a 0-d tensor.

        Raises:
            ValueError: The shapes differ; broadcasting them would silently compute another loss.
        """
        if outputs.shape != targets.shape:
            raise ValueError(f"outputs of shape {tuple(outputs.shape)} but targets of {tuple(targets.shape)}")
        return self.scale * functional.mse_loss(outputs, targets)

    def hessian_vector_product(self, outputs: Tensor, targets: Tensor, vector: Tensor) -> Tensor:
        """Return H v, of the shape of ``outputs``."""
        return vector * (2.0 * self.scale / outputs.numel())


def resolve_loss(loss: "str | nn.Module | Loss") -> Loss:
    """Return the :class:`Loss` that a name, a ``torch.nn`` loss module or such an object stands for.

    Raises:
        ValueError: The name is unknown, or the module has options whose Hessian is not implemented.
        TypeError: It is neither of the three.
    """
    if isinstance(loss, str):
        if loss == "cross_entropy":
            return CrossEntropy()
        if loss == "half_mse":
            return SquaredError(0.5)
        raise ValueError(f"unknown loss {loss!r}: use 'cross_entropy', 'half_mse', a torch.nn loss or a Loss object")
    if isinstance(loss, nn.CrossEntropyLoss):
        if loss.reduction != "mean" or loss.weight is not None or loss.ignore_index != -100:
            raise ValueError("CrossEntropyLoss is supported with reduction='mean', no weight and no ignore_index")
        return CrossEntropy(loss.label_smoothing)
    if isinstance(loss, nn.MSELoss):
        if loss.reduction != "mean":
            raise ValueError("MSELoss is supported with reduction='mean'")
        return SquaredError(1.0)
    if isinstance(loss, Loss) and not isinstance(loss, nn.Module):
        return loss
    if isinstance(loss, nn.Module) and hasattr(loss, "hessian_vector_product"):
        return loss  # type: ignore[return-value]
    raise TypeError(f"loss must be a name, a torch.nn loss or have hessian_vector_product, got {type(loss).__name__}")
