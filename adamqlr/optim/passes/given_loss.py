"""Which loss a name, a module of PyTorch's or a function stands for."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from adamqlr.optim.passes.differentiated_loss import DifferentiatedLoss
from adamqlr.optim.passes.losses import CrossEntropy, Loss, NegativeLogLikelihood, SquaredError, is_touched

_Module = TypeVar("_Module", bound=nn.Module)

# Of three tensors and more.
_OF_MORE = (
    nn.CosineEmbeddingLoss,
    nn.CTCLoss,
    nn.GaussianNLLLoss,
    nn.TripletMarginLoss,
    nn.TripletMarginWithDistanceLoss,
)
_PIECEWISE_LINEAR = (nn.L1Loss, nn.HingeEmbeddingLoss, nn.MarginRankingLoss, nn.MultiLabelMarginLoss)


def resolve_loss(loss: "str | nn.Module | Loss | Callable[[Tensor, Any], Tensor]") -> Loss:
    """Return the :class:`Loss` that a name, a ``torch.nn`` loss module, a function or such an object stands for.

    Raises:
        ValueError: The name is unknown, the module does not reduce to one number, or it has no curvature.
        TypeError: It is none of these, or a class.
    """
    if isinstance(loss, str):
        if loss == "cross_entropy":
            return CrossEntropy()
        if loss == "half_mse":
            return SquaredError(0.5)
        raise ValueError(f"unknown loss {loss!r}: use 'cross_entropy', 'half_mse', a torch.nn loss or a function")
    if isinstance(loss, type):
        raise TypeError(f"loss must be made, not a class: {loss.__name__}()")
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, nn.Module):
        return _of_module(loss)
    if callable(loss):
        return _of_function(loss)
    raise TypeError(f"loss must be a name, a torch.nn loss or a function of outputs and targets, got {loss!r}")


def check_untouched(loss: Loss) -> None:
    """See that a loss of ``torch.nn`` still is what it was taken for, whose value and derivatives are known.

    Raises:
        ValueError: It has been given hooks or a forward of its own since.
    """
    if isinstance(loss, (CrossEntropy, NegativeLogLikelihood, SquaredError)) and is_touched(loss.module):
        name = type(loss.module).__name__
        raise ValueError(
            f"{name} has been given hooks or a forward of its own: remove them, or make the optimizer anew"
        )


# Functions that modules stand for, which say by what the losses of a minibatch's pieces are averaged.
_FUNCTIONS: dict[Any, type[nn.Module]] = {
    functional.cross_entropy: nn.CrossEntropyLoss,
    functional.mse_loss: nn.MSELoss,
    functional.nll_loss: nn.NLLLoss,
}


def _of_function(loss: Callable[..., Tensor]) -> Loss:
    """Return the loss of a function: of one of PyTorch's, be it with options by ``functools.partial``, its module's."""
    owner = getattr(loss, "__self__", None)
    if isinstance(owner, nn.Module) and loss in (owner.__call__, owner.forward) and not is_touched(owner):
        return _of_module(owner)
    function, options = (loss.func, loss.keywords) if isinstance(loss, partial) and not loss.args else (loss, {})
    # A callable object may have no hash.
    module = next((module for known, module in _FUNCTIONS.items() if known is function), None)
    if module is None or not options.keys() <= inspect.signature(module).parameters.keys():
        return DifferentiatedLoss(loss)
    return _of_module(module(**options))


def _of_module(loss: nn.Module) -> Loss:
    name = type(loss).__name__
    if isinstance(loss, torch.jit.ScriptModule):
        raise ValueError("the loss is TorchScript: give the optimizer the module that torch.jit was given")
    if isinstance(loss, nn.KLDivLoss):
        raise ValueError(f"{name} is linear in the outputs: use CrossEntropyLoss, whose targets may be probabilities")
    reduction: Any = getattr(loss, "reduction", "mean")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"{name} must reduce to one number: use reduction='mean' or 'sum', not {reduction!r}")
    if isinstance(loss, _PIECEWISE_LINEAR):
        raise ValueError(f"{name} has no curvature to choose a step by: use a smooth loss, such as HuberLoss")
    if isinstance(loss, _OF_MORE):
        raise ValueError(f"{name} takes more than outputs and targets: use a function of these two that calls it")
    # Hooks may compute anything.
    if is_touched(loss):
        if type(loss) is nn.NLLLoss:
            raise ValueError(f"{name} has hooks or a forward of its own, and is linear in the outputs: remove them")
        return DifferentiatedLoss(loss)
    if _computes_as(loss, nn.CrossEntropyLoss):
        return CrossEntropy.of_module(loss)
    if type(loss) is nn.NLLLoss:
        return NegativeLogLikelihood.of_module(loss)
    if _computes_as(loss, nn.MSELoss):
        return SquaredError.of_module(loss)
    if isinstance(loss, nn.NLLLoss):
        raise ValueError(f"{name} is linear in the outputs: give it a hessian_vector_product")
    return DifferentiatedLoss(loss)


def _computes_as(loss: nn.Module, kind: type[_Module]) -> TypeGuard[_Module]:
    """Tell whether a loss is one of PyTorch's, be it of a subclass that leaves its forward pass alone."""
    own = type(loss)
    return isinstance(loss, kind) and own.forward is kind.forward and own.__call__ is kind.__call__
