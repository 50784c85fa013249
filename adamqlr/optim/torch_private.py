"""The functions of PyTorch that its documentation does not promise, in one place."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

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
    """Take Adam's step in one kernel, in place; ``step`` counts it already."""
    torch._fused_adam_(
        [theta],
        [gradient],
        [moment],
        [second_moment],
        [],
        [step],
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=0.0,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )


def fused_sgd(
    theta: Tensor, gradient: Tensor, buffer: Tensor | None, *, lr: float, momentum: float, weight_decay: float
) -> None:
    """Take SGD's step in one kernel, in place; the momentum buffer starts from zeros."""
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


def step_is_watched(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether hooks or a profiler want to see the optimizer's steps."""
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _optimizer._global_optimizer_pre_hooks
        or _optimizer._global_optimizer_post_hooks
        or torch.autograd._profiler_enabled()
    )


def unnoticed(tensors: Sequence[Tensor]) -> AbstractContextManager[Any]:
    """Return a context whose writes into ``tensors`` autograd does not notice; they must be undone before it ends."""
    return torch.autograd._unsafe_preserve_version_counter(tuple(tensors))


@contextmanager
def _refused(function: type, message: str) -> Iterator[None]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(message)

    function.apply = refuse  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del function.apply  # type: ignore[attr-defined]


def reentrant_checkpointing_refused() -> AbstractContextManager[None]:
    """Return a context in which reentrant checkpointing raises: it would leave its block without gradients."""
    module = sys.modules.get("torch.utils.checkpoint")
    if module is None:
        return nullcontext()
    return _refused(
        module.CheckpointFunction,
        "reentrant checkpointing has no second derivatives: use torch.utils.checkpoint.checkpoint(…, "
        "use_reentrant=False), in Transformers gradient_checkpointing_kwargs={'use_reentrant': False}",
    )
