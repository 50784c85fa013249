"""What a step's derivatives would lack without a word, found by its graph: of a network in the first steps.

That is what a loss takes from the parameters otherwise than by the outputs, and functions of one's own whose backward
pass autograd knows nothing of: one in NumPy or by a kernel of one's own, with ``once_differentiable`` or without.
Autograd takes what it returns for a constant, and the derivative in the cotangent lacks it.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

Gradients = Sequence[Tensor | None]


class CustomFunctions:
    """Watches the functions of one's own that a network calls: at first, and now and then, as it may call others later.

    Args:
        device: Where it computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._waits = device.type != "cpu"
        self._passes = 0
        self._mode: Any = None
        self._is_settled = self._saw_zeros = False

    def watch(self, outputs: Tensor, mode: Any) -> bool:
        """Have the backward pass raise a RuntimeError where it comes through a function that ends the derivatives.

        Args:
            outputs: The network's outputs, with their graph.
            mode: What the network may call depends on it, such as whether it is in training.

        Returns:
            Whether it is watched this time: walking through a graph takes time, and looking at numbers waits for them.
        """
        self._passes += 1
        is_due = self._passes & (self._passes - 1) == 0 or mode != self._mode
        is_captured = self._waits and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
        if is_captured or (self._is_settled and not is_due):
            return False
        self._mode, self._is_settled, self._saw_zeros = mode, False, False
        for node in _nodes(outputs):
            if isinstance(node, torch.autograd.function.BackwardCFunction):
                node.register_hook(partial(self._check, type(node).__name__.removesuffix("Backward")))
        return True

    def settle(self) -> None:
        """Take note that the pass has raised nothing.

        Where a gradient was zero, as behind a layer that begins with zeros, the next pass is watched as well; on a
        device, which would be waited for each time, one of the next.
        """
        self._is_settled = self._waits or not self._saw_zeros

    def _check(self, name: str, gradients: Gradients, cotangents: Gradients) -> None:
        if not any(cotangent is not None and cotangent.requires_grad for cotangent in cotangents):
            return
        for gradient in gradients:
            if gradient is None or not _is_constant(gradient):
                continue
            # Zeros may well be constant. Here the step looks at the numbers.
            if bool(gradient.any()):
                raise RuntimeError(
                    f"curvature needs a network that can be differentiated twice, and the backward pass of {name} "
                    "cannot be: write it in PyTorch's operations, without once_differentiable, or use plain "
                    "operations instead"
                )
            self._saw_zeros = True


def refuse_wrong_derivatives(outputs: Tensor) -> None:
    """See that PyTorch has the second derivatives of all that a network calls right.

    ``torch.autograd.gradgradcheck`` fails on ``torch._weight_norm``, of which the Fisher alone is right.

    Args:
        outputs: A network's outputs, with their graph.

    Raises:
        RuntimeError: They are known to be wrong.
    """
    if any(type(node).__name__.startswith("WeightNormInterface") for node in _nodes(outputs)):
        raise RuntimeError("PyTorch's second derivatives of weight_norm are wrong: use curvature='fisher'")


def refuse_loss_of_parameters(loss: Tensor, parameters: Sequence[Tensor]) -> None:
    """See that a loss depends on the parameters by the network's outputs alone.

    Args:
        loss: The loss of outputs whose own graph was cut off.
        parameters: Those that are trained.

    Raises:
        ValueError: It reaches one of them, as penalties on weights or hidden features do, or depends on no outputs.
    """
    if not loss.requires_grad:
        raise ValueError("the loss does not depend on the model's outputs: do not detach them or take their argmax")
    trained = set(map(id, parameters))
    if any(id(getattr(node, "variable", None)) in trained for node in _nodes(loss)):
        raise ValueError(
            "the loss depends on trained parameters otherwise than by the outputs, of which the Fisher knows nothing: "
            "use curvature='hessian', weight_decay for decay, or have forward=… return what the loss needs as outputs"
        )


def _is_constant(gradient: Tensor) -> bool:
    # What once_differentiable returns has a history that only raises, and that nothing leads to.
    return not gradient.requires_grad or type(gradient.grad_fn).__name__ == "Error"


def _nodes(outputs: Tensor) -> Iterator[Any]:
    waiting, seen = [outputs.grad_fn], {None, outputs.grad_fn}
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        yield node
        following = {after for after, _ in node.next_functions} - seen
        seen |= following
        waiting += following
