"""The derivative of ReLU, in whichever form takes less time."""

from collections.abc import Callable

import torch
from torch import Tensor

_threshold_backward: Callable[..., Tensor] = torch.ops.aten.threshold_backward.default
_threshold_backward_into: Callable[..., Tensor] = torch.ops.aten.threshold_backward.grad_input
# Of so many elements PyTorch's backward pass of ReLU takes longer to call than to run; above, it spares memory traffic.
_FEW = 2**16


class ReluDerivative:
    """The derivative of a ReLU where its outputs are ``features``: 1 where they are positive, 0 elsewhere.

    Args:
        features: The outputs, of any shape.
    """

    def __init__(self, features: Tensor) -> None:
        self._features = features
        self._derivative = features.sign() if features.numel() <= _FEW else None

    def times(self, tangent: Tensor) -> Tensor:
        """Return its product with a tangent."""
        if self._derivative is None:
            return _threshold_backward(tangent, self._features, 0)
        return tangent * self._derivative

    def times_(self, cotangent: Tensor) -> Tensor:
        """Multiply a cotangent by it, in place."""
        if self._derivative is None:
            return _threshold_backward_into(cotangent, self._features, 0, grad_input=cotangent)
        return cotangent.mul_(self._derivative)
