"""A loss of one's own, whose Hessian in the outputs PyTorch finds."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.passes.losses import is_touched
from adamqlr.optim.passes.reached_modules import reached_modules
from adamqlr.optim.passes.replay import Replay
from adamqlr.optim.passes.second_derivatives import MissingDerivativesExplained
from adamqlr.optim.passes.targets import check_same_shape

_ELEMENTWISE = (nn.BCEWithLogitsLoss, nn.BCELoss, nn.HuberLoss, nn.SmoothL1Loss, nn.MSELoss, nn.PoissonNLLLoss)


class DifferentiatedLoss:
    """Any function of outputs and targets that PyTorch differentiates twice in the outputs.

    H is its Hessian there. Where the loss is not convex in the outputs, H and with it C is indefinite: a step along a
    direction of negative curvature then climbs, as with any Hessian (``lr_clipping`` and damping bound it).

    Args:
        function: Returns the minibatch's loss, a 0-d tensor: a mean over the rows, unless it has an attribute
            ``reduction`` that says ``"sum"``, or a method ``weight(targets)`` as :class:`adamqlr.Loss` may have.
    """

    def __init__(self, function: Callable[[Tensor, Any], Tensor]) -> None:
        self.function = function
        self._modules = list(reached_modules(function))

    def __call__(self, outputs: Tensor, targets: Any) -> Tensor:
        """Return the function's value, a 0-d tensor.

        Raises:
            ValueError: It is no 0-d tensor, or the shapes differ for a loss that would broadcast them.
        """
        if self._takes_same_shapes():
            check_same_shape(outputs, targets)
        self._replay = Replay(self._modules, outputs.device)
        with self._replay.recorded():
            value = self.function(outputs, targets)
        if not isinstance(value, Tensor):
            raise ValueError(f"the loss must be a 0-d tensor, got a {type(value).__name__}")
        if value.dim() != 0:
            raise ValueError(f"the loss must be a 0-d tensor, got the shape {tuple(value.shape)}: return its mean")
        return value

    def hessian_vector_product(self, outputs: Tensor, targets: Any, vector: Tensor) -> Tensor:
        """Return H v, of the shape of ``outputs``, by differentiating twice what the last call computed.

        Raises:
            ValueError: The loss is linear in the outputs, as far as PyTorch can tell.
            RuntimeError: An operation of the loss has no second derivatives; the message says which.
        """
        name = getattr(self.function, "__name__", type(self.function).__name__)
        culprit, cure = f"a loss, here {name},", "use another, or give it a hessian_vector_product (adamqlr.Loss)"
        explained = MissingDerivativesExplained(culprit, cure)
        with torch.enable_grad(), self._replay.replayed(), explained:
            leaf = outputs.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.function(leaf, targets), leaf, create_graph=True)
            if not gradient.requires_grad:
                raise ValueError(f"the loss {name} is linear in the outputs: there is no curvature to choose a step by")
            (product,) = torch.autograd.grad(gradient, leaf, vector.to(gradient.dtype))
        return product

    def _takes_same_shapes(self) -> bool:
        function: Any = self.function
        # What comes before PyTorch's function, or in its place, may take others.
        return type(function) in _ELEMENTWISE and not (function._forward_pre_hooks or "forward" in function.__dict__)

    @property
    def is_elementwise(self) -> bool:
        """Whether H is known to be diagonal; of a subclass's forward pass, or one with hooks, nothing is known."""
        function: Any = self.function
        return type(function) in _ELEMENTWISE and not is_touched(function)

    def weight_of(self, targets: Any, rows: int) -> Tensor | float | None:
        """Return the number by which the loss of a minibatch's piece counts; None where those of pieces add up.

        Raises:
            ValueError: It is a cross-entropy with a forward pass of its own, of which that is not known.
        """
        whole = _bearer_of(self.function)
        weight = getattr(whole, "weight", None)
        # A module or a tensor of that name is one of the loss's own.
        if callable(weight) and not isinstance(weight, (nn.Module, Tensor)):
            found: Tensor | float | None = weight(targets)
            return found
        if isinstance(whole, nn.CrossEntropyLoss):
            raise ValueError(
                f"{type(whole).__name__} has hooks or a forward of its own, and by which weights the pieces of a "
                "minibatch count is not known: remove them, or give a loss with weight(targets)"
            )
        given = self.function.keywords if isinstance(self.function, partial) else {}
        is_sum = getattr(whole, "reduction", given.get("reduction")) == "sum"
        return None if is_sum else float(rows)


def _bearer_of(function: Any) -> Any:
    """Return what has a function's attributes: itself, or the module whose forward pass it is, options given or not."""
    while isinstance(function, partial):
        function = function.func
    owner = getattr(function, "__self__", None)
    is_whole = isinstance(owner, nn.Module) and function in (owner.__call__, owner.forward)
    return owner if is_whole else function
