"""Taking a step back, without waiting for the device to say whether it has to be."""

from collections.abc import Iterable

import torch
from torch import Tensor


class Refusal:
    """Copies of tensors from before a step.

    Args:
        tensors: What the step changes in place.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._kept = [(tensor, tensor.clone()) for tensor in tensors]

    def unless(self, taken: Tensor) -> None:
        """Put everything back as it was, unless ``taken``, a 0-d tensor, holds."""
        for tensor, before in self._kept:
            tensor.copy_(torch.where(taken, tensor, before))
