"""The functions of PyTorch that its documentation does not promise, in one place, each with what stands in for it."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from operator import attrgetter
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.optim import optimizer as _optimizer

_P = ParamSpec("_P")
_T = TypeVar("_T")


def without_compiler(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return a method of PyTorch's optimizers that does not import PyTorch's compiler.

    Each of them is marked as not to be compiled, and its first call imports ``torch._dynamo`` for that mark, which
    takes longer than to train a small network. Where something else has imported it, the mark is kept.
    """
    bare = getattr(method, "__wrapped__", method)

    @wraps(bare)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return (method if "torch._dynamo" in sys.modules else bare)(*args, **kwargs)

    return call


def never_compiled(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return a method that compiled functions call as it is; public decorators import PyTorch's compiler at once."""
    return without_compiler(getattr(torch, "_disable_dynamo", lambda function: function)(method))


# What PyTorch lacks is an AttributeError, a kernel that it lacks for a device a NotImplementedError.
_LACKING = (AttributeError, NotImplementedError)


def copy_all(out: list[Tensor], tensors: list[Tensor]) -> None:
    """Copy each tensor into its own of ``out``, in few kernels."""
    try:
        torch._foreach_copy_(out, tensors)
    except _LACKING:
        for destination, tensor in zip(out, tensors, strict=True):
            destination.copy_(tensor)


def scale_all(tensors: list[Tensor], factor: Any) -> None:
    """Multiply all tensors by a number, or a tensor of no dimension, in few kernels and in place."""
    try:
        torch._foreach_mul_(tensors, factor)
    except _LACKING:
        for tensor in tensors:
            tensor.mul_(factor)


def fused_adam(
    theta: Tensor,
    gradient: Tensor,
    moment: Tensor,
    second_moment: Tensor,
    step: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Take Adam's step in place, in one kernel; ``step`` counts it already."""
    beta1, beta2 = betas
    try:
        torch._fused_adam_(
            [theta],
            [gradient],
            [moment],
            [second_moment],
            [],
            [step],
            lr=lr,
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=eps,
            amsgrad=False,
            maximize=False,
        )
    except _LACKING:
        adam_written_out(theta, gradient, moment, second_moment, step, lr=lr, betas=betas, eps=eps)


def adam_written_out(
    theta: Tensor,
    gradient: Tensor,
    moment: Tensor,
    second_moment: Tensor,
    step: Tensor,
    *,
    lr: float | Tensor,
    betas: tuple[float, float],
    eps: float | Tensor,
) -> None:
    """Take the same step in a kernel for each of its parts, where ``lr`` and ``eps`` may be columns of numbers."""
    beta1, beta2 = betas
    moment.lerp_(gradient, 1 - beta1)
    second_moment.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    # In single precision 1 − β₂ᵗ would lose its digits.
    correction, second_correction = (1 - beta ** step.double() for beta in betas)
    denominator = (second_moment / second_correction).sqrt_().add_(eps)
    theta.addcdiv_(moment * (lr / correction), denominator, value=-1.0)


def fused_sgd(
    theta: Tensor, gradient: Tensor, buffer: Tensor | None, *, lr: float, momentum: float, weight_decay: float
) -> None:
    """Take SGD's step in place, in one kernel; the momentum buffer starts from zeros."""
    try:
        torch._fused_sgd_(
            [theta],
            [gradient],
            [] if buffer is None else [buffer],
            weight_decay=weight_decay,
            momentum=momentum,
            lr=lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )
    except _LACKING:
        direction = gradient.add(theta, alpha=weight_decay)
        if buffer is not None:
            direction = buffer.mul_(momentum).add_(direction)
        theta.sub_(direction, alpha=lr)


def step_is_watched(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether hooks or a profiler want to see the optimizer's steps; yes, where it cannot be told."""
    try:
        return bool(
            optimizer._optimizer_step_pre_hooks
            or optimizer._optimizer_step_post_hooks
            or _optimizer._global_optimizer_pre_hooks
            or _optimizer._global_optimizer_post_hooks
            or torch._C._autograd._profiler_enabled()
        )
    except AttributeError:
        return True


def unnoticed(tensors: Sequence[Tensor]) -> AbstractContextManager[Any]:
    """Return a context whose writes into ``tensors`` autograd does not notice; they must be undone before it ends.

    Without such a context in PyTorch, autograd notices, and raises where it matters.
    """
    return getattr(torch.autograd, "_unsafe_preserve_version_counter", nullcontext)(tuple(tensors))


_version_of = attrgetter("_version")


def versions(tensors: Sequence[Tensor]) -> list[int]:
    """Return how often each tensor has been written in place; inference tensors do not count."""
    try:
        return list(map(_version_of, tensors))
    except RuntimeError:
        return [0 if tensor.is_inference() else tensor._version for tensor in tensors]


def global_hooks(kind: Literal["forward", "backward"]) -> list[dict[int, Any]]:
    """Return the places where hooks that are called for every module stand once they are registered."""
    return [getattr(torch.nn.modules.module, f"_global_{kind}_{when}hooks", {}) for when in ("pre_", "")]


def transforms_are_active() -> bool:
    """Tell whether ``torch.func`` or forward mode is at work, in which functions of one's own need rules for it."""
    try:
        return bool(torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0)
    except AttributeError:
        return False


def parametrizations_are_cached() -> bool:
    """Tell whether ``torch.nn.utils.parametrize.cached`` keeps what weights were computed to be."""
    return bool(getattr(sys.modules.get("torch.nn.utils.parametrize"), "_cache_enabled", 0))


def joins_early_processes(model: torch.nn.Module) -> bool:
    """Tell whether a ``DistributedDataParallel`` is in ``join()``, or was last; no, where it cannot be told."""
    return bool(getattr(getattr(model, "_join_config", None), "enable", False))


def has_comm_hook(model: torch.nn.Module) -> bool:
    """Tell whether a ``DistributedDataParallel`` has a hook of its own for messages; no, where it cannot be told."""
    return bool(getattr(model, "_comm_hooks", ()))


_lock = threading.Lock()
# Which have a step under way, an entry for each.
_refusing_threads: list[int] = []


@contextmanager
def _refused(function: type, message: str) -> Iterator[None]:
    thread = threading.get_ident()

    def apply(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() in _refusing_threads:
            raise RuntimeError(message)
        return super(function, function).apply(*args, **kwargs)  # type: ignore[arg-type]

    with _lock:
        _refusing_threads.append(thread)
        function.apply = apply  # type: ignore[attr-defined]
    try:
        yield
    finally:
        with _lock:
            _refusing_threads.remove(thread)
            if not _refusing_threads:
                del function.apply  # type: ignore[attr-defined]


def reentrant_checkpointing_refused() -> AbstractContextManager[None]:
    """Return a context in which a thread's reentrant checkpointing raises: its block would have no gradients."""
    # Where there is no such class, nobody can checkpoint so.
    function = getattr(sys.modules.get("torch.utils.checkpoint"), "CheckpointFunction", None)
    if function is None:
        return nullcontext()
    return _refused(
        function,
        "reentrant checkpointing has no second derivatives: use torch.utils.checkpoint.checkpoint(…, "
        "use_reentrant=False), in Transformers gradient_checkpointing_kwargs={'use_reentrant': False}",
    )
