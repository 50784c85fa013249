"""Which parameters a model has: what is replaced, frozen or added after an optimizer was made is noticed."""

from itertools import chain
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.torch_private import global_hooks

_is_trainable = attrgetter("requires_grad")
_hooks_of, _accumulation_hooks_of = attrgetter("_backward_hooks"), attrgetter("_post_accumulate_grad_hooks")


class Structure:
    """The modules, parameters and buffers of a model as they were; comparing takes a microsecond for a small one.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._dicts: list[dict[str, Any]] = [
            members for module in model.modules() for members in (module._modules, module._parameters, module._buffers)
        ]
        self._views = [members.values() for members in self._dicts if members]
        self._members, self._size = list(chain.from_iterable(self._views)), sum(map(len, self._dicts))
        self._parameters = list(model.parameters())
        self._flags = list(map(_is_trainable, self._parameters))
        self._hooks = [h for module in model.modules() for h in (module._backward_hooks, module._backward_pre_hooks)]
        self._hooks += global_hooks("backward")
        self._model = model

    def is_unchanged(self) -> bool:
        """Tell whether every module still has the same children, parameters and buffers, frozen or not as before."""
        return (
            sum(map(len, self._dicts)) == self._size
            and all(map(is_, chain.from_iterable(self._views), self._members))
            and list(map(_is_trainable, self._parameters)) == self._flags
            and not any(map(_hooks_of, self._parameters))
            and not any(map(_accumulation_hooks_of, self._parameters))
            and not any(self._hooks)
            and self._model._compiled_call_impl is None
        )


def check_trainable(model: nn.Module) -> None:
    """Refuse models whose passes would go wrong.

    Raises:
        ValueError: The model is compiled, TorchScript or sharded, or its gradients are sparse, or not the loss's.
    """
    if any(global_hooks("backward")):
        raise ValueError("all modules have a global backward hook, which the curvature knows nothing of: remove it")
    for name, module in model.named_modules():
        where = f"the module {name!r}" if name else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(f"{where} is TorchScript: give the optimizer the module that torch.jit was given")
        if type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
            raise ValueError(
                f"{where} is compiled, and compiled passes have no second derivatives: give the optimizer the module "
                "that torch.compile was given"
            )
        if type(module).__name__ == "FullyShardedDataParallel":
            raise ValueError(f"{where} is sharded (FSDP): use DistributedDataParallel instead")
        is_embedding = isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        if is_embedding and module.sparse:
            raise ValueError(f"{where} has sparse gradients: make it with sparse=False")
        if is_embedding and module.scale_grad_by_freq:
            raise ValueError(f"{where} scales its gradients by frequency: make it with scale_grad_by_freq=False")
        if module._backward_hooks or module._backward_pre_hooks:
            raise ValueError(f"{where} has a backward hook, which the curvature knows nothing of: remove it")
    for name, parameter in model.named_parameters():
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            raise ValueError(f"{name} has a hook on its gradient, which the curvature knows nothing of: remove it")


def unwrapped(model: nn.Module) -> tuple[nn.Module, Any]:
    """Return the module within a ``DistributedDataParallel``, whose hooks the passes go around, and its group.

    Raises:
        TypeError: It is no module.
        ValueError: It is a ``DataParallel``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a module, got a {type(model).__name__}: params=… says which parameters to train"
        )
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return model.module, model.process_group
    if isinstance(model, nn.DataParallel):
        raise ValueError("DataParallel copies the parameters: use DistributedDataParallel, or the module within")
    return model, None


def named_parameters_of(model: nn.Module, wanted: list[Tensor]) -> dict[str, nn.Parameter]:
    """Return the model's parameters that are ``wanted``, by name, in the model's order.

    Raises:
        ValueError: A wanted one is not the model's.
    """
    ids = {id(parameter) for parameter in wanted}
    named = {name: parameter for name, parameter in model.named_parameters() if id(parameter) in ids}
    if len(named) != len(ids):
        shape = next(tuple(p.shape) for p in wanted if all(p is not known for known in named.values()))
        raise ValueError(f"a parameter of shape {shape} is none of the model's")
    return named


_has_processes = torch.distributed.is_initialized if torch.distributed.is_available() else lambda: False


def world_size() -> int:
    """Return the number of processes of ``torch.distributed``; 1 where it is not in use."""
    return torch.distributed.get_world_size() if _has_processes() else 1
