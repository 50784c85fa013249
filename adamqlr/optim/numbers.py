"""What a step computes with: tensors, or Python's numbers where reading a tensor takes less than a kernel."""

import math
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from adamqlr.optim.constants import constant

Number = Tensor | float

_CODES = {torch.float32: "f", torch.float64: "d"}


class Numbers:
    """How the step computes with numbers: here as tensors, which nobody waits for."""

    def read(self, tensor: Tensor) -> Number:
        """Return a number to compute with for a tensor."""
        return tensor

    def weights(self, numbers: Sequence[Number]) -> Sequence[Tensor]:
        """Return numbers as tensors that are good until the next call."""
        return numbers  # type: ignore[return-value]

    def tensors(self, numbers: Sequence[Number]) -> Sequence[Tensor]:
        """Return numbers as tensors to keep."""
        return numbers  # type: ignore[return-value]

    def minus_nothing(self, like: Tensor) -> Number:
        """Return minus the smallest normal number of a tensor's dtype."""
        return constant(-torch.finfo(like.dtype).tiny, like.dtype, like.device)


class HostNumbers(Numbers):
    """Computes with Python's numbers, and rounds them where they become tensors.

    Args:
        dtype: The tensors'.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype, self._minus_nothing = dtype, -torch.finfo(dtype).tiny
        # Memory that is written from Python: making a tensor takes longer.
        self._memory = array(_CODES[dtype], (0.0, 0.0))
        self._weights = torch.frombuffer(self._memory, dtype=dtype).unbind()

    read = staticmethod(Tensor.item)  # type: ignore[assignment]

    def weights(self, numbers: Sequence[Number]) -> Sequence[Tensor]:
        """Return numbers, two at most, as tensors that are good until the next call."""
        for index, number in enumerate(numbers):
            self._memory[index] = number  # type: ignore[assignment]
        return self._weights[: len(numbers)]

    def tensors(self, numbers: Sequence[Number]) -> Sequence[Tensor]:
        """Return numbers as tensors to keep."""
        return torch.frombuffer(array(self._memory.typecode, numbers), dtype=self._dtype).unbind()

    def minus_nothing(self, like: Tensor) -> Number:
        """Return minus the smallest normal number of the dtype."""
        return self._minus_nothing


def at_hand(tensor: Tensor) -> bool:
    """Tell whether to read a number takes less than the smallest kernel: that of one network on a CPU."""
    return tensor.device.type == "cpu" and tensor.dim() == 0


def numbers_like(tensor: Tensor) -> Numbers:
    """Return what numbers such as the given one are computed with."""
    return HostNumbers(tensor.dtype) if at_hand(tensor) else Numbers()


def rounded(number: float, dtype: torch.dtype) -> float:
    """Return a number as ``dtype`` holds it."""
    return array(_CODES[dtype], (number,))[0]


def quotient(numerator: Number, denominator: Number) -> Number:
    """Return a quotient, infinite or NaN where the denominator is zero."""
    if isinstance(denominator, float) and denominator == 0:
        return numerator * math.copysign(math.inf, denominator)
    return numerator / denominator


def plus_product(total: Number, first: Number, second: Number, scale: float = 1.0) -> Number:
    """Return total + scale · first · second: for tensors, one kernel."""
    if isinstance(total, Tensor):
        return torch.addcmul(total, first, second, value=scale)  # type: ignore[arg-type]
    return total + scale * first * second


def where(condition: Tensor | bool, number: Number, other: Number) -> Number:
    """Return a number where the condition holds, and else the other."""
    if isinstance(condition, Tensor):
        return torch.where(condition, number, other)
    return number if condition else other


def root(number: Number) -> Number:
    """Return the square root, NaN where there is none."""
    if isinstance(number, Tensor):
        return number.sqrt()
    return math.sqrt(number) if number >= 0 else math.nan
