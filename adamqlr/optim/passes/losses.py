"""Losses with their Hessian in the network's outputs, the H of C = E[Jᵀ H J]."""

from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from adamqlr.optim.passes.targets import check_same_shape

Reduction = Literal["mean", "sum"]


@runtime_checkable
class Loss(Protocol):
    """What an optimizer asks of a loss: any object with these two methods will do.

    One that is no mean over the rows has ``weight(targets)`` as well, by which the losses of a minibatch's pieces are
    averaged: the number that a mean is divided by, or None where the losses of pieces add up.
    """

    def __call__(self, outputs: Tensor, targets: Any) -> Tensor:
        """Return the minibatch's loss, a 0-d tensor."""
        ...

    def hessian_vector_product(self, outputs: Tensor, targets: Any, vector: Tensor) -> Tensor:
        """Return H v, of the shape of ``outputs``, with H = ∂²loss/∂outputs² of exactly the loss above."""
        ...


def is_touched(module: nn.Module) -> bool:
    """Tell whether a module has hooks or a forward of its own, by which it may compute anything."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


class CrossEntropy:
    """Softmax cross-entropy of logits (batch, classes, …), as :class:`torch.nn.CrossEntropyLoss`.

    Targets are class numbers (batch, …), of which ``ignore_index`` do not count, or probabilities of the shape of the
    logits. For each target H = a (diag(p) − p pᵀ) / N with p the softmax probabilities, a the target's weight, and N
    the sum of the weights (the number of targets for probabilities; 1 for ``reduction="sum"``).

    Args:
        weight: A weight for each class.
        ignore_index: Targets that do not count.
        label_smoothing: The share of a target that is spread over all classes.
        reduction: ``"mean"`` or ``"sum"``.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        self.module: Any = nn.CrossEntropyLoss(
            weight, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction=reduction
        )

    @classmethod
    def of_module(cls, module: nn.Module) -> "CrossEntropy":
        """Return the loss with a module's options, read at each call: schedules may set them anew."""
        loss = cls()
        loss.module = module
        return loss

    @property
    def class_weight(self) -> Tensor | None:
        """A weight for each class."""
        # By way of the module, finding a buffer takes ten times as long.
        try:
            weight: Tensor | None = self.module._buffers["weight"]
        except KeyError:
            weight = self.module.weight
        return weight

    @property
    def ignore_index(self) -> int:
        """Targets that do not count."""
        index: int = self.module.ignore_index
        return index

    @property
    def label_smoothing(self) -> float:
        """The share of a target that is spread over all classes."""
        share: float = getattr(self.module, "label_smoothing", 0.0)
        return share

    @property
    def reduction(self) -> Reduction:
        """What becomes of the rows' losses."""
        reduction: Reduction = self.module.reduction
        return reduction

    @property
    def is_plain(self) -> bool:
        """Whether it is the mean over targets that all count alike, but for those that are ignored."""
        return self.class_weight is None and self.label_smoothing == 0 and self.reduction == "mean"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy, a 0-d tensor.

        Raises:
            ValueError: The outputs have no rows.
        """
        _check_rows(outputs)
        return functional.cross_entropy(
            outputs,
            targets,
            self.class_weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )

    def hessian_vector_product(self, outputs: Tensor, targets: Tensor, vector: Tensor) -> Tensor:
        """Return H v, of the shape of ``outputs``."""
        probabilities = torch.softmax(outputs, dim=1)
        weighted = probabilities * vector
        product = weighted - probabilities * weighted.sum(dim=1, keepdim=True)
        return product * self.target_weights(outputs, targets).unsqueeze(1)

    def target_weights(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return a / N for each target, of shape (batch, …)."""
        weight = _one_for_each(self.class_weight, outputs)
        targets = _as_index(targets)
        if targets.is_floating_point():
            broadcast = weight.view(-1, *[1] * (outputs.dim() - 2))
            sharp = (targets * broadcast).sum(dim=1)
            total = sharp.new_full((), float(sharp.numel()))
        else:
            counted = targets != self.ignore_index
            sharp = torch.where(counted, weight[targets.masked_fill(~counted, 0)], 0)
            total = sharp.sum()
        smooth = weight.mean() if targets.is_floating_point() else torch.where(counted, weight.mean(), 0)
        weights = (1 - self.label_smoothing) * sharp + self.label_smoothing * smooth
        # Where nothing counts there is no mean, and no curvature.
        return weights if self.reduction == "sum" else weights / torch.where(total > 0, total, 1)

    def weight(self, targets: Tensor) -> Tensor | float | None:
        """Return the number that the mean is divided by; None for a sum."""
        if self.reduction == "sum":
            return None
        if targets.is_floating_point():
            return float(targets.numel() // targets.shape[1])
        return _weight_of_classes(self.class_weight, self.ignore_index, targets)


class NegativeLogLikelihood:
    """Negative log-likelihood of log-probabilities (batch, classes, …), as :class:`torch.nn.NLLLoss`.

    It is linear in the outputs. H = a diag(exp outputs) / N stands for its curvature, with a and N as for
    :class:`CrossEntropy`: Jᵀ H J is then the Fisher, and equals cross-entropy's on the logits.

    Args:
        weight: A weight for each class.
        ignore_index: Targets that do not count.
        reduction: ``"mean"`` or ``"sum"``.
    """

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: Reduction = "mean") -> None:
        self._options = CrossEntropy(weight, ignore_index, reduction=reduction)

    @classmethod
    def of_module(cls, module: nn.NLLLoss) -> "NegativeLogLikelihood":
        """Return the loss with a module's options, read at each call."""
        loss = cls()
        loss._options = CrossEntropy.of_module(module)
        return loss

    @property
    def module(self) -> nn.Module:
        """What has the options."""
        module: nn.Module = self._options.module
        return module

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the negative log-likelihood, a 0-d tensor.

        Raises:
            ValueError: The outputs have no rows.
        """
        _check_rows(outputs)
        options = self._options
        return functional.nll_loss(
            outputs, targets, options.class_weight, ignore_index=options.ignore_index, reduction=options.reduction
        )

    def hessian_vector_product(self, outputs: Tensor, targets: Tensor, vector: Tensor) -> Tensor:
        """Return H v, of the shape of ``outputs``."""
        return outputs.exp() * vector * self.target_weights(outputs, targets).unsqueeze(1)

    def target_weights(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return a / N for each target, of shape (batch, …)."""
        return self._options.target_weights(outputs, targets)

    def weight(self, targets: Tensor) -> Tensor | float | None:
        """Return the number that the mean is divided by; None for a sum."""
        return self._options.weight(targets)


class SquaredError:
    """``scale`` · (ŷ − y)² averaged over all elements: H = 2 · scale / elements · I.

    ``scale`` ½ is the half-MSE of the paper, 1 is :class:`torch.nn.MSELoss`.

    Args:
        scale: Factor of the squares.
        reduction: ``"mean"`` or ``"sum"``.
    """

    def __init__(self, scale: float, reduction: Reduction = "mean") -> None:
        self.scale = scale
        self.module = nn.MSELoss(reduction=reduction)

    @classmethod
    def of_module(cls, module: nn.MSELoss) -> "SquaredError":
        """Return the loss with a module's reduction, read at each call."""
        loss = cls(1.0)
        loss.module = module
        return loss

    @property
    def reduction(self) -> Reduction:
        """What becomes of the squares."""
        reduction: Reduction = self.module.reduction  # type: ignore[assignment]
        return reduction

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the scaled squared error, a 0-d tensor.

        Raises:
            ValueError: The shapes differ; broadcasting them would silently compute another loss.
        """
        check_same_shape(outputs, targets)
        return self.scale * functional.mse_loss(outputs, targets, reduction=self.reduction)

    def hessian_vector_product(self, outputs: Tensor, targets: Tensor, vector: Tensor) -> Tensor:
        """Return H v, of the shape of ``outputs``."""
        return vector * (2.0 * self.scale / (outputs.numel() if self.reduction == "mean" else 1))

    def weight(self, targets: Tensor) -> float | None:
        """Return the number of elements, which the mean is divided by; None for a sum."""
        return float(targets.numel()) if self.reduction == "mean" else None


def _check_rows(outputs: Tensor) -> None:
    if outputs.dim() < 2:
        shape = tuple(outputs.shape)
        raise ValueError(f"outputs must have a row for each case, of shape (batch, classes, …), got {shape}")


def _one_for_each(weight: Tensor | None, outputs: Tensor) -> Tensor:
    if weight is None:
        return torch.ones(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
    return weight.to(outputs.device)


def _weight_of_classes(weight: Tensor | None, ignore_index: int, targets: Tensor) -> Tensor:
    targets = _as_index(targets)
    counted = targets != ignore_index
    if weight is None:
        return counted.sum()
    return torch.where(counted, weight.to(targets.device)[targets.masked_fill(~counted, 0)], 0).sum()


def _as_index(targets: Tensor) -> Tensor:
    # PyTorch takes bytes for a mask, and compares them with −100 as bytes.
    return targets.long() if targets.dtype == torch.uint8 else targets
