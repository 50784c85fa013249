"""Square roots and samples of a loss's Fisher in the network's outputs, which K-FAC sends back through the network.

With B cases in the minibatch, the output Fisher H_b of case b is B times its block of ∂²loss/∂outputs² for the losses
here, whose predictive distributions have the outputs as natural parameters (Martens & Grosse 2015, section 2.2).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from adamqlr.optim.passes.losses import CrossEntropy, Loss, NegativeLogLikelihood, SquaredError


@runtime_checkable
class OutputFisher(Protocol):
    """What K-FAC asks of a loss beyond its value and Hessian: an :class:`adamqlr.Loss` that has these two methods."""

    def sample_cotangent(self, outputs: Tensor, targets: Any) -> Tensor:
        """Return random δ, of the shape of ``outputs``, independent between cases, with E[δ_b δ_bᵀ] = H_b.

        ``targets`` say how much each counts, and nothing else: δ is of the model's own predictive distribution.
        """
        ...

    def exact_cotangents(self, outputs: Tensor, targets: Any) -> Iterator[Tensor]:
        """Yield δ⁽ᵏ⁾, each of the shape of ``outputs``, with Σ_k δ_b⁽ᵏ⁾ δ_b⁽ᵏ⁾ᵀ = H_b for each case b."""
        ...


class CategoricalFisher:
    """Classes over dimension 1 of outputs (batch, classes, …), with a weight a / N for each target.

    For logits H_b = B a / N (diag(p) − p pᵀ) at each of a case's positions, for log-probabilities B a / N diag(p).

    Args:
        loss: Gives the targets' weights; with log-probabilities as outputs, or else logits.
    """

    def __init__(self, loss: CrossEntropy | NegativeLogLikelihood) -> None:
        self._loss = loss
        self._centered = float(isinstance(loss, CrossEntropy))

    def sample_cotangent(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return (p − e_y) √(B a / N), or −e_y √(B a / N), with y drawn from p by PyTorch's global generator."""
        probabilities = torch.softmax(outputs, dim=1)
        # The smallest of exponential times with rates p: unlike torch.multinomial it neither waits nor raises on NaN.
        drawn = (probabilities / torch.empty_like(probabilities).exponential_()).argmax(dim=1, keepdim=True)
        minus_one = torch.full_like(probabilities, -1.0)
        cotangent = (probabilities * self._centered).scatter_add(1, drawn, minus_one)
        return cotangent * self._roots(outputs, targets)

    def exact_cotangents(self, outputs: Tensor, targets: Tensor) -> Iterator[Tensor]:
        """Yield √p_k (e_k − p) for each class k at each position, 0 at the others: classes · positions of them."""
        probabilities = torch.softmax(outputs, dim=1)
        roots = (probabilities.sqrt() * self._roots(outputs, targets)).view(*outputs.shape[:2], -1)
        probabilities = probabilities.view(*outputs.shape[:2], -1)
        for position in range(probabilities.shape[2]):
            here, root = probabilities[:, :, position] * self._centered, roots[:, :, position]
            for k in range(outputs.shape[1]):
                column = torch.zeros_like(probabilities)
                column[:, :, position] = -here * root[:, k : k + 1]
                column[:, k, position] += root[:, k]
                yield column.view(outputs.shape)

    def _roots(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (self._loss.target_weights(outputs, targets) * len(outputs)).sqrt().unsqueeze(1)


class GaussianFisher:
    """Outputs (batch, …) as means of a normal distribution: H_b = 2 scale / outputs per case · I.

    Args:
        loss: The squared error.
    """

    def __init__(self, loss: SquaredError) -> None:
        self._loss = loss

    def _root(self, outputs: Tensor) -> float:
        each = outputs.shape[1:].numel() if self._loss.reduction == "mean" else 1 / len(outputs)
        return math.sqrt(2.0 * self._loss.scale / each)

    def sample_cotangent(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return normal deviates, from PyTorch's global generator."""
        return torch.empty_like(outputs).normal_(0.0, self._root(outputs))

    def exact_cotangents(self, outputs: Tensor, targets: Tensor) -> Iterator[Tensor]:
        """Yield the scaled unit vector of each output."""
        for k in range(outputs[0].numel()):
            yield _units(outputs, k).mul_(self._root(outputs))


class DifferentiatedFisher:
    """The square root of B times a loss's own Hessian in the outputs, its negative part left out.

    For losses of one output a case, or known to be elementwise, H_b is a diagonal; for others the Hessian of every case
    is computed, a product for each of its outputs, and its eigenvalues, which waits for the device on CUDA. Where a
    loss compares cases with each other, H_b is the expectation of what is found, over random signs of the cases.

    Args:
        loss: The loss.
    """

    def __init__(self, loss: Loss) -> None:
        self._loss = loss

    def sample_cotangent(self, outputs: Tensor, targets: Any) -> Tensor:
        """Return H_b^½ times random signs, from PyTorch's global generator."""
        signs = torch.randint_like(outputs, 2).mul_(2).sub_(1)
        return self._root(outputs, targets)(signs)

    def exact_cotangents(self, outputs: Tensor, targets: Any) -> Iterator[Tensor]:
        """Yield H_b^½ e_k for each output."""
        root = self._root(outputs, targets)
        for k in range(outputs[0].numel()):
            yield root(_units(outputs, k))

    def _root(self, outputs: Tensor, targets: Any) -> Callable[[Tensor], Tensor]:
        cases, size = len(outputs), outputs[0].numel()
        is_elementwise = getattr(self._loss, "is_elementwise", False)
        # What cases have in common cancels on average, and their own squares stay as they are.
        signs = _ones_of_cases(outputs) if is_elementwise else torch.randint_like(_ones_of_cases(outputs), 2) * 2 - 1

        def of_each_case(vector: Tensor) -> Tensor:
            return self._loss.hessian_vector_product(outputs, targets, vector * signs) * signs

        if size == 1 or is_elementwise:
            diagonal = of_each_case(torch.ones_like(outputs)).mul(cases).clamp_(min=0).sqrt_()
            return lambda vector: vector * diagonal
        columns = [of_each_case(_units(outputs, k)) for k in range(size)]
        blocks = torch.stack([column.reshape(cases, -1) for column in columns], dim=2) * cases
        # Where a case has no finite Hessian there is no root, of which eigh would say so by an error of its own.
        is_known = blocks.isfinite().all(dim=2, keepdim=True).all(dim=1, keepdim=True)
        values, vectors = torch.linalg.eigh(torch.where(is_known, (blocks + blocks.mT) / 2, 0))
        root = (vectors * values.clamp(min=0).sqrt().unsqueeze(1)) @ vectors.mT
        root = torch.where(is_known, root, math.nan)
        return lambda vector: (root @ vector.reshape(cases, -1, 1)).reshape(outputs.shape)


class MembersFisher:
    """The output Fisher of networks side by side, with outputs (members, rows, …): each draws for its own rows.

    Args:
        loss: Cross-entropy of logits or the squared error, averaged over each network's rows.
    """

    def __init__(self, loss: Loss) -> None:
        self._loss, self._fisher = loss, output_fisher(loss)

    def sample_cotangent(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return random δ of all networks, from PyTorch's global generator."""
        rows, of_rows = self._rows(outputs, targets)
        drawn = self._fisher.sample_cotangent(rows, of_rows)
        factor = self._factor(outputs, rows, of_rows)
        return drawn.view(outputs.shape) if factor is None else drawn.view(outputs.shape) * factor

    def exact_cotangents(self, outputs: Tensor, targets: Tensor) -> Iterator[Tensor]:
        """Yield δ⁽ᵏ⁾ of all networks."""
        rows, of_rows = self._rows(outputs, targets)
        factor = self._factor(outputs, rows, of_rows)
        for cotangent in self._fisher.exact_cotangents(rows, of_rows):
            yield cotangent.view(outputs.shape) if factor is None else cotangent.view(outputs.shape) * factor

    def _rows(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of all networks as those of one."""
        if isinstance(self._loss, CrossEntropy):
            # Networks may share their targets.
            targets = targets.expand(outputs.shape[:-1]).flatten()
        return outputs.flatten(0, 1), targets

    def _factor(self, outputs: Tensor, rows: Tensor, targets: Tensor) -> Tensor | None:
        """Return what turns means over all networks' rows into those over each one's rows that count; None for 1."""
        if not isinstance(self._loss, CrossEntropy):
            return None
        shares = self._loss.target_weights(rows, targets).view(outputs.shape[:-1]).sum(dim=1)
        return torch.where(shares > 0, shares * len(outputs), 1).rsqrt()[:, None, None]


def _ones_of_cases(outputs: Tensor) -> Tensor:
    """Return a one for each case, of a shape that multiplies outputs."""
    return outputs.new_ones(len(outputs), *[1] * (outputs.dim() - 1))


def _units(outputs: Tensor, k: int) -> Tensor:
    """Return the unit vector of output k, in each case."""
    units = torch.zeros_like(outputs, memory_format=torch.contiguous_format)
    units.view(len(outputs), -1)[:, k] = 1
    return units


def output_fisher(loss: Loss) -> OutputFisher:
    """Return the output Fisher of ``loss``: its own, one that is known, or its Hessian's positive part."""
    if isinstance(loss, OutputFisher):
        return loss
    if isinstance(loss, (CrossEntropy, NegativeLogLikelihood)):
        return CategoricalFisher(loss)
    if isinstance(loss, SquaredError):
        return GaussianFisher(loss)
    return DifferentiatedFisher(loss)
