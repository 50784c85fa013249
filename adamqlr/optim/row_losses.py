"""Losses that are means over rows, with their derivatives written out, for one network or several side by side.

Outputs have shape (…, rows, outputs), and every network of the leading dimensions has a loss of its own.
"""

from typing import Protocol

import torch
from torch import Tensor

from adamqlr.optim.losses import CrossEntropy, Loss, SquaredError


class RowLoss(Protocol):
    """A loss L and its derivatives in the outputs. Networks side by side may share their targets, (rows, …)."""

    def takes(self, targets: Tensor) -> bool:
        """Tell whether the derivatives hold for such targets."""
        ...

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return L, of shape (…)."""
        ...

    def value_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return L and ∂L/∂outputs, of shapes (…) and (…, rows, outputs)."""
        ...

    def hessian_quadratic_form(self, outputs: Tensor, vector: Tensor) -> Tensor:
        """Return vᵀ H v, of shape (…), with H the Hessian of L in the outputs and v of their shape."""
        ...


class RowCrossEntropy:
    """:class:`~adamqlr.optim.losses.CrossEntropy` of logits (…, rows, classes) and class numbers (…, rows)."""

    def takes(self, targets: Tensor) -> bool:
        """Tell whether targets are class numbers, not probabilities."""
        return targets.dtype == torch.int64

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        return _mean_negative(torch.log_softmax(outputs, dim=-1), _index(outputs, targets))

    def value_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy and (p − e_y) / rows."""
        logarithms = torch.log_softmax(outputs, dim=-1)
        chosen = _index(outputs, targets)
        gradient = logarithms.exp().scatter_(-1, chosen, -1.0, reduce="add").div_(outputs.shape[-2])
        return _mean_negative(logarithms, chosen), gradient

    def hessian_quadratic_form(self, outputs: Tensor, vector: Tensor) -> Tensor:
        """Return the mean over rows of vᵀ (diag p − p pᵀ) v, the variance of v under p."""
        probabilities = torch.softmax(outputs, dim=-1)
        centered = vector - (probabilities * vector).sum(dim=-1, keepdim=True)
        return _inner(probabilities * centered, centered) / outputs.shape[-2]


class RowSquaredError:
    """:class:`~adamqlr.optim.losses.SquaredError` of outputs and targets (…, rows, outputs)."""

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def takes(self, targets: Tensor) -> bool:
        """Take any targets."""
        return True

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean scaled squared error."""
        residuals = _residuals(outputs, targets)
        return _inner(residuals, residuals).mul_(self._weight(outputs))

    def value_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean scaled squared error and its gradient."""
        residuals, weight = _residuals(outputs, targets), self._weight(outputs)
        return _inner(residuals, residuals).mul_(weight), residuals.mul_(2.0 * weight)

    def hessian_quadratic_form(self, outputs: Tensor, vector: Tensor) -> Tensor:
        """Return vᵀ v · 2 scale / elements."""
        return _inner(vector, vector).mul_(2.0 * self._weight(outputs))

    def _weight(self, outputs: Tensor) -> float:
        return self._scale / (outputs.shape[-1] * outputs.shape[-2])


def row_loss(loss: Loss) -> RowLoss | None:
    """Return the loss with its derivatives written out, or None if it is not one of those above."""
    if type(loss) is CrossEntropy and loss.label_smoothing == 0:
        return RowCrossEntropy()
    return RowSquaredError(loss.scale) if type(loss) is SquaredError else None


def _index(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return targets as indices into the last dimension; networks side by side may share theirs."""
    index = targets.unsqueeze(-1)
    return index if index.dim() == outputs.dim() else index.expand(*outputs.shape[:-1], 1)


def _mean_negative(logarithms: Tensor, chosen: Tensor) -> Tensor:
    return logarithms.gather(-1, chosen).mean(dim=(-2, -1)).neg_()


def _residuals(outputs: Tensor, targets: Tensor) -> Tensor:
    # Members may share their targets; within one network, broadcasting would silently compute another loss.
    if outputs.shape[-2:] != targets.shape[-2:]:
        raise ValueError(f"outputs of shape {tuple(outputs.shape)} but targets of {tuple(targets.shape)}")
    return outputs - targets


def _inner(first: Tensor, second: Tensor) -> Tensor:
    if first.dim() == 2:
        flat = first.view(-1)
        return torch.dot(flat, flat if second is first else second.view(-1))
    return torch.linalg.vecdot(first.flatten(-2), second.flatten(-2))
