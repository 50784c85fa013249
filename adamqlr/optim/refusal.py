"""Taking a step back where its numbers are not finite, without waiting for the device to say whether it has to be."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Refusal:
    """Copies of tensors from before a step.

    Args:
        tensors: What the step changes in place.
        model: Whose buffers it changes, in place or by putting others there.

    Attributes:
        undo: Takes back what is on the host, or was made in the step; None where nothing is.
    """

    def __init__(self, tensors: Iterable[Tensor], model: nn.Module) -> None:
        self.undo: Callable[[], None] | None = None
        self._kept = [(tensor, tensor.clone()) for tensor in tensors]
        self._buffers: list[tuple[dict[str, Any], str, Tensor]] = [
            (module._buffers, name, buffer.clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]

    def unless_finite(self, *numbers: Tensor) -> Tensor:
        """Put everything back as it was unless all numbers are finite; return whether they are, a 0-d tensor."""
        taken = torch.stack([number.isfinite().all() for number in numbers]).all()
        buffers = [(place[name], before) for place, name, before in self._buffers]
        for tensor, before in [*self._kept, *buffers]:
            tensor.copy_(torch.where(taken, tensor, before))
        # This once, the step looks at the numbers.
        if self.undo is not None and not bool(taken):
            self.undo()
        return taken
