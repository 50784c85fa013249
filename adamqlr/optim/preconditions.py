"""What a step needs of what surrounds it: errors that say what stands in its way."""

from collections.abc import Mapping

import torch
from torch import nn

from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.structure import world_size
from adamqlr.optim.torch_private import has_comm_hook, joins_early_processes, parametrizations_are_cached


def check_surroundings(is_alone: bool) -> None:
    """Refuse to step where gradients cannot be had, or where other processes train unnoticed.

    Args:
        is_alone: Whether the optimizer knows of no other processes, and nobody has said that there are none.

    Raises:
        RuntimeError: Gradients, or weights that follow the parameters, cannot be had here.
        ValueError: There are other processes.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("a step needs gradients, which torch.inference_mode forbids: take it outside")
    if parametrizations_are_cached():
        raise RuntimeError(
            "within torch.nn.utils.parametrize.cached() weights stay as they were before the step: take it outside"
        )
    if is_alone and world_size() > 1:
        raise ValueError(
            f"torch.distributed runs {world_size()} processes: give the optimizer the DistributedDataParallel "
            "module or a process_group, or process_group='local' where each trains on its own"
        )


def check_messages(model: nn.Module) -> None:
    """Refuse what a ``DistributedDataParallel`` would do with messages, as the passes go around it.

    Raises:
        ValueError: It waits for processes that have ended, or has a hook that changes what is sent.
    """
    if joins_early_processes(model):
        raise ValueError(
            "the step cannot wait for processes that run out of minibatches, as join() does: give every process as "
            "many minibatches and step outside it; where it has ended, with model.join(enable=False) turns it off"
        )
    if has_comm_hook(model):
        raise ValueError(
            "the DistributedDataParallel has a communication hook or mixed_precision, which the step's messages would "
            "go around: make it without, and step within torch.autocast(…, dtype=torch.bfloat16)"
        )


def check_same_model(
    named: Mapping[str, nn.Parameter], before: Mapping[str, nn.Parameter], flat: FlatParameters, takes_all: bool
) -> None:
    """Refuse a model that has become another since it was laid out.

    Args:
        named: The model's parameters as they are now, by name.
        before: Those that the optimizer was given, trained or frozen, as they were.
        flat: Those that are trained.
        takes_all: Whether whatever is trainable is to be trained.

    Raises:
        ValueError: A parameter is gone, or has another shape, precision or device, or is trainable and was not.
    """
    shapes = dict(zip(flat.names, flat.shapes, strict=True))
    for name, old in before.items():
        new = named.get(name)
        if new is None or new.shape != shapes.get(name, old.shape):
            raise ValueError(f"{name} is no longer what it was: make the optimizer anew for the changed model")
        if (new.dtype, new.device) != (flat.buffer.dtype, flat.buffer.device):
            raise ValueError(f"{name} moved to {new.dtype} on {new.device}: make the optimizer anew")
    known = {id(parameter) for parameter in named.values() if parameter.requires_grad}
    added = known - {id(named[name]) for name in before}
    if takes_all and added:
        name = next(name for name, parameter in named.items() if id(parameter) in added)
        raise ValueError(f"{name} has become trainable: make the optimizer anew, or give it its params=…")
