"""What a step computes with: tensors, or Python's numbers where reading a tensor takes less than a kernel."""

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from adamqlr.optim.constants import constant

# Whether one is a float is asked first below: of a float it takes a quarter of the time to ask whether it is a tensor.
Number = Tensor | float
Function = Callable[..., Sequence[Number]]

_CODES = {torch.float32: "f", torch.float64: "d"}


class Numbers:
    """Computes with numbers: here with tensors, which nobody waits for."""

    def call(self, function: Function, *tensors: Tensor, keep: bool = False) -> Sequence[Tensor]:
        """Return what a function of numbers finds for those in ``tensors``.

        Args:
            function: Computes numbers from numbers, by operators and the functions below, and changes nothing.
            tensors: What it is called with.
            keep: Whether the results are to last beyond the next call for as many.
        """
        return function(*tensors)  # type: ignore[return-value]

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
        self._places: dict[int, _Place] = {}

    def call(self, function: Function, *tensors: Tensor, keep: bool = False) -> Sequence[Tensor]:
        """Return what a function of numbers finds for those in ``tensors``."""
        numbers: Sequence[Any] = function(*map(Tensor.item, tensors))
        place = None if keep else self._places.get(len(numbers))
        if place is None:
            place = _Place(numbers, self._dtype)
            if not keep:
                self._places[len(numbers)] = place
        else:
            place.write(numbers)
        if observe := _observer.get():
            observe(function, tensors, place.write)
        return place.tensors

    def minus_nothing(self, like: Tensor) -> Number:
        """Return minus the smallest normal number of the dtype."""
        return self._minus_nothing


class _Place:
    """Numbers in memory that Python writes and tensors read: making tensors takes longer."""

    def __init__(self, numbers: Sequence[float], dtype: torch.dtype) -> None:
        self._memory = array(_CODES[dtype], numbers)
        self.tensors = torch.frombuffer(self._memory, dtype=dtype).unbind()

    def write(self, numbers: Sequence[float]) -> None:
        """Replace the numbers."""
        for index, number in enumerate(numbers):
            self._memory[index] = number


# Who wants to know of calls on the host: function, tensors, and what writes its results.
Observer = Callable[[Function, Sequence[Tensor], Callable[[Sequence[Any]], None]], None]
_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


@contextmanager
def calls_observed(observer: Observer) -> Iterator[None]:
    """Let an observer see every call on the host in this thread, after it."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


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
    if isinstance(denominator, float):
        return numerator / denominator if denominator else numerator * math.copysign(math.inf, denominator)
    return constant_like(denominator, numerator) / denominator


def plus_product(total: Number, first: Number, second: Number, scale: float = 1.0) -> Number:
    """Return total + scale · first · second: for tensors, one kernel."""
    if isinstance(total, float):
        return total + scale * first * second
    return torch.addcmul(total, first, second, value=scale)  # type: ignore[arg-type]


def magnitude(number: Number) -> Number:
    """Return a number without its sign."""
    return abs(number) if isinstance(number, float) else number.abs()


def is_zero(number: Number) -> Tensor | bool:
    """Tell whether a number is zero."""
    return number == 0 if isinstance(number, (float, int)) else number == constant_like(number, 0.0)


def where(condition: Tensor | bool, number: Number, other: Number) -> Number:
    """Return a number where the condition holds, and else the other; one of them must be no constant."""
    if isinstance(condition, bool):
        return number if condition else other
    return torch.where(condition, constant_like(other, number), constant_like(number, other))


def where_all(condition: Tensor | bool, numbers: Sequence[Number], others: Sequence[Number]) -> Sequence[Number]:
    """Return some numbers where the condition holds, and else the others; not both of a pair may be constants."""
    if isinstance(condition, bool):
        return numbers if condition else others
    return [where(condition, number, other) for number, other in zip(numbers, others, strict=True)]


def constant_like(other: Number, number: Number) -> Number:
    """Return a number, a constant or not, in the form of another: as a tensor of its dtype, where that is one."""
    if isinstance(other, float) or isinstance(number, Tensor):
        return number
    return constant(number, other.dtype, other.device)


def root(number: Number) -> Number:
    """Return the square root, NaN where there is none."""
    if isinstance(number, float):
        return math.sqrt(number) if number >= 0 else math.nan
    return number.sqrt()
