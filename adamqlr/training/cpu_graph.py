"""Training steps recorded as the kernels that they call: on a CPU, what CUDA graphs are on a GPU.

A small step takes longer to find its kernels, to view tensors and to allocate results than to compute. Recorded kernels
are called again with the tensors that they were called with, and write their results to where those lay.
"""

import logging
from collections.abc import Callable, Sequence
from ctypes import c_double, c_float, c_int32
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adamqlr.optim.numbers import Function, calls_observed

logger = logging.getLogger(__name__)

Call = Callable[[], object]

_C_TYPES: dict[torch.dtype, Any] = {torch.float32: c_float, torch.float64: c_double, torch.int32: c_int32}
_value = attrgetter("value")
_READ = torch.ops.aten._local_scalar_dense.default


class CpuRecorder:
    """Records the kernels of steps, and what is computed with Python's numbers between them."""

    def warm_up(self, step: Callable[[], Any]) -> Any:
        """Call ``step``."""
        return step()

    def record(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """Take ``step``, and record it.

        A step cannot be recorded if what it calls depends on numbers that it reads otherwise than by
        :class:`adamqlr.optim.numbers.HostNumbers`. It goes on as it is, as it could not be begun again.

        Returns:
            A function that returns the result once, and then takes the step again.
        """
        recording = _Recording()
        with recording, calls_observed(recording.add_call_on_host):
            result = step()
        calls, is_taken = recording.calls, True
        obstacle = "it reads numbers" if recording.reads else recording.obstacle
        if obstacle:
            logger.info("steps are not captured: %s", obstacle)

        def replay() -> Any:
            nonlocal is_taken
            if is_taken:
                is_taken = False
                return result
            if obstacle:
                return step()
            # Here kernels find their way past autograd, a sixth of the time of a small step.
            with torch.inference_mode():
                for call in calls:
                    call()
            return result

        return replay


class _Recording(TorchDispatchMode):
    """Lists what a step calls.

    Attributes:
        calls: What to call to take the step again.
        reads: Numbers that were read, but for calls on the host.
        obstacle: Why they would be no step; empty if they are one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.reads, self.obstacle = 0, ""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Tell PyTorch not to mark the method below as not to be compiled: that would import its compiler."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a kernel, and list how it is called again."""
        kwargs = kwargs or {}
        if torch.Tag.dynamic_output_shape in func.tags and not _is_indexed_by_numbers(func, args):
            self.obstacle = f"{func} makes as much as numbers say"
        if func is _READ:
            self.reads += 1
            return func(*args, **kwargs)
        if "empty" in func.overloadpacket.__name__:
            # Its contents are not read.
            return func(*args, **kwargs)
        if func._schema.is_mutable:
            call = _in_place(func, args, kwargs)
            result = call()
            self.calls.append(call)
            return result if func._schema.returns else None
        result = func(*args, **kwargs)
        places = [result] if isinstance(result, Tensor) else result
        if not isinstance(places, (list, tuple)):
            self.obstacle = f"{func} reads numbers"
        elif not self.obstacle and not _is_view(places, args):
            self.calls.append(_into(places, func, args, kwargs))
        return result

    def add_call_on_host(
        self, function: Function, tensors: Sequence[Tensor], write: Callable[[Sequence[Any]], None]
    ) -> None:
        """List a call of :class:`adamqlr.optim.numbers.HostNumbers`."""
        self.reads -= len(tensors)
        # Where numbers lie in memory they are read in a quarter of the time that tensors take.
        numbers = [_C_TYPES[tensor.dtype].from_address(tensor.data_ptr()) for tensor in tensors]
        # The tensors are kept, as their memory is theirs.
        self.calls.append(partial(_call_on_host, function, numbers, write, tensors))


def _call_on_host(function: Function, numbers: Sequence[Any], write: Callable[[Sequence[Any]], None], _: Any) -> None:
    write(function(*map(_value, numbers)))


def _is_view(results: Sequence[Tensor], args: Sequence[Any]) -> bool:
    """Tell whether results lie where the argument lies: they are there again without a call."""
    if not args or not isinstance(args[0], Tensor):
        return False
    first, viewed = (tensor.untyped_storage().data_ptr() for tensor in (results[0], args[0]))
    return first == viewed


def _is_indexed_by_numbers(func: Any, args: Sequence[Any]) -> bool:
    """Tell whether a kernel takes elements by their numbers, and not by a mask: that many every time."""
    return func is torch.ops.aten.index.Tensor and all(
        index is None or index.dtype not in (torch.bool, torch.uint8) for index in args[1]
    )


def _in_place(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Call:
    """Return the call of a kernel that writes into its arguments."""
    function, names = _as_users_call(func), [argument.name for argument in func._schema.arguments if argument.is_out]
    if function is func or not names:
        return partial(function, *args, **kwargs)
    outputs = tuple(kwargs[name] for name in names)
    others = {name: value for name, value in kwargs.items() if name not in names}
    return partial(function, *args, **others, out=outputs if len(outputs) > 1 else outputs[0])


def _into(places: Sequence[Tensor], func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Call:
    """Return a call that writes a kernel's results to where they lie."""
    function = _as_users_call(func)

    # What is drawn must not be drawn twice, and an operator has its places under other names.
    if torch.Tag.nondeterministic_seeded in func.tags or function is func:
        return partial(_copy, places, function, args, kwargs)
    out = places[0] if len(places) == 1 else tuple(places)
    call, found = partial(function, *args, **kwargs, out=out), [place.clone() for place in places]
    try:
        call()
    except TypeError:
        return partial(_copy, places, function, args, kwargs)
    if all(torch.equal(place.nan_to_num(), one.nan_to_num()) for place, one in zip(places, found, strict=True)):
        return call
    for place, one in zip(places, found, strict=True):
        place.copy_(one)
    return partial(_copy, places, func, args, kwargs)


def _copy(places: Sequence[Tensor], function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Copy what a function finds to where it lay."""
    found = function(*args, **kwargs)
    for place, one in zip(places, [found] if isinstance(found, Tensor) else found, strict=True):
        place.copy_(one)


def _as_users_call(func: Any) -> Callable[..., Any]:
    """Return the function by which users of PyTorch call a kernel: it has less to find out than the operator."""
    name = func.overloadpacket.__name__
    home: Any = torch
    if name.endswith("_") and not name.startswith("_"):
        home = Tensor
    elif name.startswith("linalg_"):
        name, home = name.removeprefix("linalg_"), torch.linalg
    function: Callable[..., Any] = getattr(home, name, func)
    return function
