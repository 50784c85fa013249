"""Taking a step back, without waiting for the device to say whether it has to be."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Refusal:
    """Copies of tensors from before a step.

    Args:
        tensors: What the step changes in place.
        model: Whose buffers it changes, in place or by putting others there.
    """

    def __init__(self, tensors: Iterable[Tensor], model: nn.Module) -> None:
        self._kept = [(tensor, tensor.clone()) for tensor in tensors]
        self._buffers: list[tuple[dict[str, Any], str, Tensor]] = [
            (module._buffers, name, buffer.clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]

    def unless(self, taken: Tensor) -> None:
        """Put everything back as it was, unless ``taken``, a 0-d tensor, holds."""
        buffers = [(place[name], before) for place, name, before in self._buffers]
        for tensor, before in [*self._kept, *buffers]:
            tensor.copy_(torch.where(taken, tensor, before))
