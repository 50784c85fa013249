"""Losses that are means over rows, with their derivatives written out, for one network or several side by side.

Outputs have shape (…, rows, outputs), and every network of the leading dimensions has a loss of its own.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from adamqlr.optim.constants import constant
from adamqlr.optim.heuristics import gram, inner_product
from adamqlr.optim.passes.losses import CrossEntropy, Loss, SquaredError
from adamqlr.optim.passes.targets import check_precision

_aten = torch.ops.aten
_UNREDUCED, _MEAN = 0, 1


class RowLoss(Protocol):
    """A loss L and its derivatives in the outputs. Networks side by side may share their targets, (rows, …)."""

    def takes(self, targets: Tensor) -> bool:
        """Tell whether the derivatives hold for such targets."""
        ...

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return L, of shape (…), for targets that :meth:`differentiate` has seen."""
        ...

    def differentiate(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, "OutputHessian"]:
        """Return L of shape (…), ∂L/∂outputs of shape (…, rows, outputs), and the Hessian H of L in the outputs."""
        ...


class OutputHessian(Protocol):
    """H, the Hessian of a loss in the outputs."""

    def __call__(self, vectors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Return vᵢᵀ H vⱼ, each of shape (…), for vectors of the shape of the outputs."""
        ...


class RowCrossEntropy:
    """:class:`~adamqlr.optim.passes.losses.CrossEntropy` of logits (…, rows, classes) and class numbers (…, rows)."""

    def __init__(self, loss: CrossEntropy) -> None:
        self._loss = loss

    def takes(self, targets: Tensor) -> bool:
        """Tell whether targets are class numbers, not probabilities, and still count alike."""
        return targets.dtype == torch.int64 and self._loss.is_plain

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        return self._likelihood(torch.log_softmax(outputs, dim=-1), targets)[0]

    def differentiate(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, OutputHessian]:
        """Return the mean cross-entropy, (p − e_y) / targets that count, and (diag p − p pᵀ) / as many."""
        logarithms = torch.log_softmax(outputs, dim=-1)
        loss, count = self._likelihood(logarithms, targets)
        rows, flat = logarithms.flatten(0, -2), self._flat(logarithms, targets)
        if count.dim():
            each = (1 / count).unsqueeze(-1).expand(logarithms.shape[:-1]).flatten()
            inner = _aten.nll_loss_backward(each, rows, flat, None, _UNREDUCED, self._loss.ignore_index, count.sum())
        else:
            one = constant(1.0, loss.dtype, loss.device)
            inner = _aten.nll_loss_backward(one, rows, flat, None, _MEAN, self._loss.ignore_index, count)
        # −1 / count in the column of a target that counts; the row's sum is minus its weight.
        inner = inner.view(logarithms.shape)
        weight, probabilities = inner.sum(dim=-1, keepdim=True), logarithms.exp()
        gradient = torch.addcmul(inner, probabilities, weight, value=-1.0)

        def hessian(vectors: Sequence[Tensor]) -> list[list[Tensor]]:
            # The covariance of vᵢ and vⱼ under p, averaged over rows that count.
            centered = [vector - (probabilities * vector).sum(dim=-1, keepdim=True) for vector in vectors]
            weights = probabilities * weight.neg()
            return gram([flat_rows(weights * vector) for vector in centered], list(map(flat_rows, centered)))

        return loss, gradient, hessian

    def _likelihood(self, logarithms: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy, and the number of targets that count, each of shape (…)."""
        ignored = self._loss.ignore_index
        if logarithms.dim() == 2:
            total: tuple[Tensor, Tensor] = _aten.nll_loss_forward(logarithms, targets, None, _MEAN, ignored)
            return total
        rows, flat = logarithms.flatten(0, -2), self._flat(logarithms, targets)
        each, _ = _aten.nll_loss_forward(rows, flat, None, _UNREDUCED, ignored)
        count = (flat != ignored).view(logarithms.shape[:-1]).sum(dim=-1)
        return each.view(logarithms.shape[:-1]).sum(dim=-1) / count, count.to(logarithms.dtype)

    def _flat(self, logarithms: Tensor, targets: Tensor) -> Tensor:
        """Return a target for each row of all networks, which may share theirs."""
        if targets.dim() == logarithms.dim() - 1:
            return targets.flatten()
        return targets.expand(logarithms.shape[:-1]).flatten()


class RowSquaredError:
    """:class:`~adamqlr.optim.passes.losses.SquaredError` of outputs and targets (…, rows, outputs)."""

    def __init__(self, loss: SquaredError) -> None:
        self._loss, self._scale = loss, loss.scale

    def takes(self, targets: Tensor) -> bool:
        """Take any targets, as long as the loss is their mean."""
        return self._loss.reduction == "mean"

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean scaled squared error."""
        residuals = flat_rows(outputs - targets)
        return inner_product(residuals, residuals).mul_(self._weights(outputs)[0])

    def differentiate(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, OutputHessian]:
        """Return the mean scaled squared error, its gradient and 2 scale / elements · I.

        Raises:
            ValueError: The shapes differ, where broadcasting would compute another loss, or targets are too precise.
        """
        # Members may share their targets.
        if outputs.shape != targets.shape and (outputs.dim() == 2 or outputs.shape[-2:] != targets.shape[-2:]):
            raise ValueError(f"outputs of shape {tuple(outputs.shape)} but targets of {tuple(targets.shape)}")
        check_precision(outputs, targets)
        residuals, (once, twice) = outputs - targets, self._weights(outputs)
        flat = flat_rows(residuals)
        loss = inner_product(flat, flat).mul_(once)

        def hessian(vectors: Sequence[Tensor]) -> list[list[Tensor]]:
            flat = list(map(flat_rows, vectors))
            return gram([vector * twice for vector in flat], flat)

        return loss, residuals.mul_(twice), hessian

    def _weights(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return what an element counts in the loss, and twice that, for the derivatives."""
        rows, columns = outputs.shape[-2:]
        each, kind = self._scale / (rows * columns), (outputs.dtype, outputs.device)
        return constant(each, *kind), constant(2.0 * each, *kind)


def row_loss(loss: Loss) -> RowLoss | None:
    """Return the loss with its derivatives written out, or None if it is not exactly one of those above."""
    if type(loss) is CrossEntropy and loss.is_plain:
        return RowCrossEntropy(loss)
    if type(loss) is SquaredError and loss.reduction == "mean":
        return RowSquaredError(loss)
    return None


def flat_rows(outputs: Tensor) -> Tensor:
    """Return the outputs of all rows as one vector, of shape (…, rows · outputs)."""
    return outputs.view(-1) if outputs.dim() == 2 else outputs.flatten(-2)
