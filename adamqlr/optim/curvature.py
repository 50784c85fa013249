"""Gradients, and curvature along directions, from one forward pass of a network.

The quantities are those of the quadratic model M (paper, section 3.1): the gradient g = ∇L, products J d of the
outputs' Jacobian with directions, and the quadratic forms dᵀ C d of the Fisher C = E[Jᵀ H J] or the loss's Hessian.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from adamqlr.optim.losses import Loss
from adamqlr.optim.tangents import cheap_tangents, plain_attention


@contextmanager
def _missing_derivatives_explained() -> Iterator[None]:
    """Say what to do where PyTorch finds an operation that cannot be differentiated twice."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if "is not implemented" not in reason:
            raise
        raise RuntimeError(
            f"curvature needs a network that can be differentiated twice ({reason}): use plain operations instead, "
            "for attention attn_implementation='eager' or torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
        ) from error


@contextmanager
def preserved_buffers(model: nn.Module) -> Iterator[None]:
    """Undo what passes within the block do to the model's buffers, such as batch normalization's statistics."""
    buffers = list(model.buffers())
    saved = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, saved, strict=True):
                buffer.copy_(value)


class Linearization:
    """A network on one minibatch, to first order around the current parameters.

    Making one runs the forward pass (the only one that moves the buffers) and the backward pass. The gradient g = Jᵀu
    is linear in the cotangent u = ∂L/∂outputs, so the derivative of dᵀg in u is J d: a product costs one tangent pass
    over the activations that are there already, for any network that can be differentiated twice.

    Attributes:
        loss: L(θ; B), a 0-d tensor.
        outputs: The network's outputs, detached.
        gradients: g, a tensor for each parameter.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        parameters: Sequence[nn.Parameter],
        inputs: Tensor,
        targets: Tensor,
    ) -> None:
        with plain_attention(model), cheap_tangents(model):
            outputs = model(inputs)
        self.outputs = outputs.detach()
        leaf = outputs.detach().requires_grad_()
        value = loss(leaf, targets)
        (cotangent,) = torch.autograd.grad(value, leaf)
        self.loss = value.detach()
        self._cotangent = cotangent.detach().requires_grad_()
        self.gradients = torch.autograd.grad(
            outputs, parameters, self._cotangent, create_graph=True, allow_unused=True, materialize_grads=True
        )

    def jacobian_vector_product(self, direction: Sequence[Tensor], last: bool = True) -> Tensor:
        """Return J d, of the shape of the outputs.

        Args:
            direction: d, a tensor for each parameter.
            last: Whether no further product is wanted, so that the graph can be freed.

        Raises:
            RuntimeError: An operation of the network has no second derivatives; the message says which.
        """
        pairs = [(g, d) for g, d in zip(self.gradients, direction, strict=True) if g.requires_grad]
        gradients, directions = zip(*pairs, strict=True)
        with _missing_derivatives_explained():
            (product,) = torch.autograd.grad(gradients, self._cotangent, directions, retain_graph=not last)
        return product


def fisher_quadratic_form(
    linearization: Linearization, loss: Loss, targets: Tensor, directions: Sequence[Sequence[Tensor]]
) -> Tensor:
    """Return the matrix of dᵢᵀ C dⱼ, of shape (k, k), for k directions and the Fisher C = E[Jᵀ H J].

    C is the generalized Gauss–Newton matrix of exactly ``loss``, its averaging included, and is never formed.
    """
    final = len(directions) - 1
    tangents = [
        linearization.jacobian_vector_product(direction, last=index == final)
        for index, direction in enumerate(directions)
    ]
    curved = [loss.hessian_vector_product(linearization.outputs, targets, tangent) for tangent in tangents]
    products = [torch.dot(t.flatten(), c.flatten()) for t in tangents for c in curved]
    return torch.stack(products).view(len(directions), len(directions))


class HessianLinearization:
    """The loss of a network on one minibatch, to second order around the current parameters.

    Attributes:
        loss: L(θ; B), a 0-d tensor.
        gradients: g, a tensor for each parameter.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        parameters: Sequence[nn.Parameter],
        inputs: Tensor,
        targets: Tensor,
    ) -> None:
        self._parameters = parameters
        with plain_attention(model):
            outputs = model(inputs)
        value = loss(outputs, targets)
        self.gradients = torch.autograd.grad(
            value, parameters, create_graph=True, allow_unused=True, materialize_grads=True
        )
        self.loss = value.detach()

    def quadratic_form(self, direction: Sequence[Tensor]) -> Tensor:
        """Return dᵀ ∇²L d, a 0-d tensor, for a direction of one tensor a parameter; frees the graph.

        Raises:
            RuntimeError: An operation of the network has no second derivatives; the message says which.
        """
        pairs = [(g, d) for g, d in zip(self.gradients, direction, strict=True) if g.requires_grad]
        gradients, directions = zip(*pairs, strict=True)
        with _missing_derivatives_explained():
            products = torch.autograd.grad(
                gradients, self._parameters, directions, allow_unused=True, materialize_grads=True
            )
        return torch.stack([(p * d).sum() for p, d in zip(products, direction, strict=True)]).sum()
