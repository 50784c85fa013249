"""A network's loss on one minibatch, to first and to second order around the parameters, by its graph."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adamqlr.optim.passes.custom_functions import refuse_loss_of_parameters
from adamqlr.optim.passes.losses import Loss
from adamqlr.optim.passes.outputs import unresolved_change
from adamqlr.optim.passes.second_derivatives import MissingDerivativesExplained
from adamqlr.optim.torch_private import versions


class ForwardPass(NamedTuple):
    """What a forward pass leaves to be differentiated.

    Attributes:
        outputs: The network's outputs, with their graph.
        loss: The loss.
        parameters: What is trained.
        targets: As the loss takes them.
        precision: In which the outputs came, if the loss resolves more than that.
    """

    outputs: Tensor
    loss: Loss
    parameters: Sequence[Tensor]
    targets: Any
    precision: torch.dtype | None = None


def _value_of_leaf(loss: Loss, leaf: Tensor, targets: Any) -> Tensor:
    """Return the loss of outputs without a graph; refuse one that writes into them, as H is found at them later."""
    before = versions([leaf])
    try:
        value = loss(leaf, targets)
    except RuntimeError as error:
        if "leaf Variable that requires grad" not in str(error):
            raise
        raise ValueError("the loss writes into the outputs, or its own parameters: clone them there") from error
    if versions([leaf]) != before:
        raise ValueError("the loss writes into the outputs: clone them there")
    return value


class Linearization:
    """A network on one minibatch, to first order around the current parameters, with its graph.

    Args:
        passed: The forward pass.

    Attributes:
        loss: L(θ; B), a 0-d tensor.
        outputs: The network's outputs, detached.
        gradients: g, a tensor for each parameter; None for those that the outputs do not depend on.
        unresolved: What a unit of the outputs' last place is for the loss, as of
            :func:`~adamqlr.optim.passes.outputs.unresolved_change`; None where that resolves no more.
    """

    def __init__(self, passed: ForwardPass) -> None:
        outputs, loss, parameters, targets, precision = passed
        self.outputs = outputs.detach()
        leaf = outputs.detach().requires_grad_()
        value = _value_of_leaf(loss, leaf, targets)
        # At every step: penalties may be added later. The network's own graph is too large for that.
        refuse_loss_of_parameters(value, parameters)
        (cotangent,) = torch.autograd.grad(value, leaf)
        self.loss = value.detach()
        self._loss, self._targets = loss, targets
        self._cotangent = cotangent.detach().requires_grad_()
        given = self.outputs, cotangent, loss, targets
        self.unresolved = None if precision is None else unresolved_change(*given, precision)
        with MissingDerivativesExplained():
            self.gradients = torch.autograd.grad(
                outputs, parameters, self._cotangent, create_graph=True, allow_unused=True
            )

    def jacobian_vector_product(self, direction: Sequence[Tensor], last: bool = True) -> Tensor:
        """Return J v, of the shape of the outputs.

        Args:
            direction: v, a tensor for each parameter.
            last: Whether no further product is wanted, so that the graph can be freed.

        Raises:
            RuntimeError: An operation of the network has no second derivatives; the message says which.
        """
        gradients, directions = _with_history(self.gradients, direction)
        with MissingDerivativesExplained():
            (product,) = torch.autograd.grad(gradients, self._cotangent, directions, retain_graph=not last)
        return product

    def curvature(self, directions: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Return vᵢᵀ C vⱼ for the Fisher C = E[Jᵀ H J] of exactly the loss, its averaging included."""
        final = len(directions) - 1
        tangents = [self.jacobian_vector_product(v, last=index == final) for index, v in enumerate(directions)]
        curved = [self._loss.hessian_vector_product(self.outputs, self._targets, tangent) for tangent in tangents]
        vectors = [_number(tangent).flatten() for tangent in tangents]
        # A loss may compute in another precision.
        products = [_number(product).flatten().to(vectors[0].dtype) for product in curved]
        return [[torch.dot(vector, product) for product in products] for vector in vectors]


class HessianLinearization:
    """The loss of a network on one minibatch, to second order around the current parameters, with its graph.

    Args:
        passed: The forward pass.

    Attributes:
        loss: L(θ; B), a 0-d tensor.
        gradients: g, a tensor for each parameter; None for those that the loss does not depend on.
        unresolved: As of :class:`Linearization`.
    """

    def __init__(self, passed: ForwardPass) -> None:
        outputs, loss, parameters, targets, precision = passed
        self._parameters, self.unresolved = parameters, None
        value = loss(outputs, targets)
        wanted = [*parameters] if precision is None else [*parameters, outputs]
        with MissingDerivativesExplained("a network and a loss"):
            found = torch.autograd.grad(value, wanted, create_graph=True, allow_unused=True)
        self.loss, self.gradients = value.detach(), found[: len(parameters)]
        if precision is not None:
            self.unresolved = unresolved_change(outputs, found[-1], loss, targets, precision)

    def curvature(self, directions: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Return vᵢᵀ ∇²L vⱼ; frees the graph.

        Raises:
            RuntimeError: An operation of the network has no second derivatives; the message says which.
        """
        final = len(directions) - 1
        products = [self._product(direction, index == final) for index, direction in enumerate(directions)]
        return [[_sum_of_products(product, other) for other in directions] for product in products]

    def _product(self, direction: Sequence[Tensor], last: bool) -> Sequence[Tensor]:
        gradients, directions = _with_history(self.gradients, direction)
        if not gradients:
            # Of a linear loss of a linear network.
            return [torch.zeros_like(parameter) for parameter in self._parameters]
        with MissingDerivativesExplained("a network and a loss"):
            return torch.autograd.grad(
                gradients,
                self._parameters,
                directions,
                retain_graph=not last,
                allow_unused=True,
                materialize_grads=True,
            )


def _with_history(gradients: Sequence[Tensor | None], direction: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the gradients that can be differentiated, and the direction's parts beside them."""
    pairs = [(g, d) for g, d in zip(gradients, direction, strict=True) if g is not None and g.requires_grad]
    return [gradient for gradient, _ in pairs], [part for _, part in pairs]


def _sum_of_products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    return torch.stack([(one * other).sum() for one, other in zip(first, second, strict=True)]).sum()


def _number(tensor: Tensor) -> Tensor:
    """Return a tensor in a precision that sums can be taken in: autocast's is not."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
