"""Training steps recorded as the kernels that they call: on a CPU, what CUDA graphs are on a GPU.

A small step takes longer to find its kernels, to view tensors and to allocate results than to compute. Recorded kernels
are called again with the tensors that they were called with, and write their results to where those lay.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adamqlr.optim.numbers import Function, calls_observed

Call = Callable[[], object]

_READ = torch.ops.aten._local_scalar_dense.default


class CpuRecorder:
    """Records the kernels of steps, and what is computed with Python's numbers between them."""

    def warm_up(self, step: Callable[[], Any]) -> Any:
        """Call ``step``."""
        return step()

    def record(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """Take ``step`` once, and return a function that first returns its result, and then repeats it.

        Raises:
            RuntimeError: The step does something that depends on numbers otherwise than by
                :class:`adamqlr.optim.numbers.HostNumbers`.
        """
        recording = _Recording()
        with recording, calls_observed(recording.add_call_on_host):
            result = step()
        if recording.reads:
            raise RuntimeError("a step reads numbers on its own")
        calls, is_first = recording.calls, True

        def replay() -> Any:
            nonlocal is_first
            if not is_first:
                with torch.no_grad():
                    for call in calls:
                        call()
            is_first = False
            return result

        return replay


class _Recording(TorchDispatchMode):
    """Lists what a step calls.

    Attributes:
        calls: What to call to take the step again.
        reads: Numbers that were read, but for calls on the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a kernel, and list how it is called again."""
        kwargs = kwargs or {}
        if torch.Tag.dynamic_output_shape in func.tags and not _is_indexed_by_numbers(func, args):
            raise RuntimeError(f"{func} makes as much as numbers say")
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
        if not _is_view(result, args):
            self.calls.append(_into(result, func, args, kwargs))
        return result

    def add_call_on_host(
        self, function: Function, tensors: Sequence[Tensor], write: Callable[[Sequence[Any]], None]
    ) -> None:
        """List a call of :class:`adamqlr.optim.numbers.HostNumbers`."""
        self.reads -= len(tensors)
        self.calls.append(lambda: write(function(*map(Tensor.item, tensors))))


def _is_view(result: Any, args: Sequence[Any]) -> bool:
    """Tell whether a result lies where the argument lies: it is there again without a call."""
    viewed = args[0] if args else None
    first = result if isinstance(result, Tensor) else result[0]
    return isinstance(viewed, Tensor) and viewed.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()


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


def _into(result: Any, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Call:
    """Return a call that writes a kernel's results to where they lie."""
    function = _as_users_call(func)
    results = [result] if isinstance(result, Tensor) else result

    def copied() -> None:
        found = function(*args, **kwargs)
        for place, one in zip(results, [found] if isinstance(found, Tensor) else found, strict=True):
            place.copy_(one)

    # What is drawn must not be drawn twice, and an operator has its places under other names.
    if torch.Tag.nondeterministic_seeded in func.tags or function is func:
        return copied
    call, before = partial(function, *args, **kwargs, out=result), [one.clone() for one in results]
    try:
        call()
    except TypeError:
        return copied
    for one, expected in zip(results, before, strict=True):
        if not torch.equal(one.nan_to_num(), expected.nan_to_num()):
            raise RuntimeError(f"{func} finds something else where it is called as {function.__name__}")
    return call


def _as_users_call(func: Any) -> Callable[..., Any]:
    """Return the function by which users of PyTorch call a kernel: it has less to find out than the operator."""
    name = func.overloadpacket.__name__
    if name.endswith("_") and not name.startswith("_"):
        return getattr(Tensor, name, func)
    if name.startswith("linalg_"):
        return getattr(torch.linalg, name.removeprefix("linalg_"), func)
    return getattr(torch, name, func)
