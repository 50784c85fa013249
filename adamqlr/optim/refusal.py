"""Taking a step back where its numbers are not finite, without waiting for the device to say whether it has to be."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.buffers import can_hold
from adamqlr.optim.torch_private import versions


class _Buffer:
    """A module's buffer from before a step, which may write into it or put another where it was."""

    def __init__(self, place: dict[str, Any], name: str) -> None:
        self._place, self._name = place, name
        self._before = self._stands()
        buffer = self._before[0]
        self.value = None if buffer is None else buffer.clone()

    def _stands(self) -> tuple[Tensor | None, list[int]]:
        buffer: Tensor | None = self._place[self._name]
        return buffer, [] if buffer is None else versions([buffer])

    def in_place(self) -> list[tuple[Tensor, Tensor]]:
        """Return what stands there now and the value from before, if it can be written into."""
        now = self._place[self._name]
        return [(now, self.value)] if self.value is not None and can_hold(now, self.value) else []

    def has_changed(self) -> bool:
        """Tell whether something else stands there now."""
        (before, version), (now, later) = self._before, self._stands()
        return now is not before or version != later

    def put_back(self) -> None:
        """Put the value from before there."""
        self._place[self._name] = self.value


class Refusal:
    """Copies of tensors from before a step.

    Args:
        tensors: What the step changes in place.
        modules: Those whose buffers it changes, in place or by putting others there; one may hold another.

    Attributes:
        undo: Takes back what is on the host, or was made in the step; None where nothing is.
    """

    def __init__(self, tensors: Iterable[Tensor], modules: Iterable[nn.Module]) -> None:
        self.undo: Callable[[], None] | None = None
        self._kept = [(tensor, tensor.clone()) for tensor in tensors]
        each = dict.fromkeys(chain.from_iterable(module.modules() for module in modules))
        self._buffers = [_Buffer(module._buffers, name) for module in each for name in module._buffers]

    def unless_finite(self, *numbers: Tensor) -> Tensor:
        """Put everything back as it was unless all numbers are finite; return whether they are, a 0-d tensor."""
        taken = torch.stack([number.isfinite().all() for number in numbers]).all()
        undone = [] if self.undo is None else [self.undo]
        for buffer in self._buffers:
            found = buffer.in_place()
            self._kept += found
            if not found and buffer.has_changed():
                undone.append(buffer.put_back)
        # Counts of PyTorch's optimizers are on the host.
        elsewhere = [pair for pair in self._kept if pair[0].device != taken.device]
        for tensor, before in self._kept:
            if tensor.device == taken.device:
                tensor.copy_(torch.where(taken, tensor, before))
        # For these, the step looks at the numbers.
        if (undone or elsewhere) and not bool(taken):
            for tensor, before in elsewhere:
                tensor.copy_(before)
            for undo in undone:
                undo()
        return taken
