"""Square roots and samples of a loss's Fisher in the network's outputs, which K-FAC sends back through the network.

With B cases in the minibatch, the output Fisher H_b of case b is B times its block of ∂²loss/∂outputs² for the losses
here, whose predictive distributions have the outputs as natural parameters (Martens & Grosse 2015, section 2.2).
"""

import math
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from adamqlr.optim.losses import CrossEntropy, Loss, SquaredError


@runtime_checkable
class OutputFisher(Protocol):
    """What K-FAC asks of a loss beyond its value and Hessian: a :class:`Loss` with these two methods will do."""

    def sample_cotangent(self, outputs: Tensor) -> Tensor:
        """Return random δ, of the shape of ``outputs``, independent between cases, with E[δ_b δ_bᵀ] = H_b."""
        ...

    def exact_cotangents(self, outputs: Tensor) -> Iterator[Tensor]:
        """Yield δ⁽ᵏ⁾, each of the shape of ``outputs``, with Σ_k δ_b⁽ᵏ⁾ δ_b⁽ᵏ⁾ᵀ = H_b for each case b."""
        ...


class CategoricalFisher:
    """Softmax over dimension 1 of logits (batch, classes, …): H_b = diag(p) − p pᵀ for each of a case's positions.

    A case's positions share its weight: each counts 1 / positions.
    """

    def sample_cotangent(self, outputs: Tensor) -> Tensor:
        """Return p − e_y with y drawn from p, from PyTorch's global generator."""
        probabilities = torch.softmax(outputs, dim=1)
        # The smallest of exponential times with rates p: unlike torch.multinomial it neither waits nor raises on NaN.
        drawn = (probabilities / torch.empty_like(probabilities).exponential_()).argmax(dim=1, keepdim=True)
        cotangent = probabilities.scatter_add(1, drawn, torch.full_like(probabilities, -1.0))
        positions = outputs[0, 0].numel()
        return cotangent if positions == 1 else cotangent / math.sqrt(positions)

    def exact_cotangents(self, outputs: Tensor) -> Iterator[Tensor]:
        """Yield √p_k (e_k − p) for each class k at each position, 0 at the others: classes · positions of them."""
        probabilities = torch.softmax(outputs, dim=1).view(*outputs.shape[:2], -1)
        positions = probabilities.shape[2]
        roots = (probabilities / positions).sqrt()
        for position in range(positions):
            here, root = probabilities[:, :, position], roots[:, :, position]
            for k in range(outputs.shape[1]):
                column = torch.zeros_like(probabilities)
                column[:, :, position] = -here * root[:, k : k + 1]
                column[:, k, position] += root[:, k]
                yield column.view(outputs.shape)


class GaussianFisher:
    """Outputs (batch, …) as means of a normal distribution: H_b = ``precision`` / outputs per case · I.

    Args:
        precision: 2 · scale of the :class:`SquaredError`.
    """

    def __init__(self, precision: float) -> None:
        self.precision = precision

    def _root(self, outputs: Tensor) -> float:
        return math.sqrt(self.precision / outputs[0].numel())

    def sample_cotangent(self, outputs: Tensor) -> Tensor:
        """Return normal deviates, from PyTorch's global generator."""
        return torch.randn_like(outputs) * self._root(outputs)

    def exact_cotangents(self, outputs: Tensor) -> Iterator[Tensor]:
        """Yield the scaled unit vector of each output."""
        for k in range(outputs[0].numel()):
            column = torch.zeros_like(outputs)
            column.view(len(outputs), -1)[:, k] = self._root(outputs)
            yield column


def output_fisher(loss: Loss) -> OutputFisher:
    """Return the output Fisher of ``loss``.

    Raises:
        TypeError: The loss has no predictive distribution that is known.
    """
    if isinstance(loss, CrossEntropy):
        return CategoricalFisher()
    if isinstance(loss, SquaredError):
        return GaussianFisher(2.0 * loss.scale)
    if isinstance(loss, OutputFisher):
        return loss
    raise TypeError(f"K-FAC needs a loss with sample_cotangent and exact_cotangents, got {type(loss).__name__}")
