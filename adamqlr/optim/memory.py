"""Memory that tensors of one model share, which moving the parameters to one buffer would part."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn


class _Stretch(NamedTuple):
    """Where a tensor lies in its storage, in bytes."""

    start: int
    end: int
    name: str
    tensor: Tensor


def check_memory(model: nn.Module, trained: Collection[str]) -> None:
    """Refuse trained parameters that share memory with other parameters or with buffers.

    Args:
        model: The model.
        trained: The names of its trained parameters.

    Raises:
        ValueError: Some do, and would be parted.
    """
    by_storage: dict[int, list[_Stretch]] = defaultdict(list)
    for name, tensor in _tensors_of(model):
        by_storage[tensor.untyped_storage().data_ptr()].append(_stretch(name, tensor))
    for stretches in by_storage.values():
        longest: list[_Stretch] = []
        for stretch in sorted(stretches, key=lambda one: one.start):
            longest = [one for one in longest if one.end > stretch.start]
            for other in longest:
                if (stretch.name in trained or other.name in trained) and _overlap(stretch.tensor, other.tensor):
                    raise ValueError(
                        f"{other.name} and {stretch.name} share their memory, which the optimizer has to move: tie "
                        "them as one parameter, by assigning the parameter itself and not its data, or clone one"
                    )
            longest.append(stretch)


def _tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if not isinstance(tensor, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer) and (
            # Of some kinds of tensor nobody can say where they lie.
            type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__
            and tensor.layout == torch.strided
            and not (tensor.is_nested or tensor.is_meta)
            and tensor.numel() > 0
        ):
            yield name, tensor


def _stretch(name: str, tensor: Tensor) -> _Stretch:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return _Stretch(start, start + (last + 1) * tensor.element_size(), name, tensor)


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors whose stretches overlap have an element in common, as columns of a matrix have not."""
    return bool(torch.isin(_addresses(one), _addresses(other)).any())


def _addresses(tensor: Tensor) -> Tensor:
    """Return the address of each byte of a tensor's elements."""
    places = torch.zeros((), dtype=torch.int64)
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        places = places.unsqueeze(-1) + torch.arange(size) * stride
    size = tensor.element_size()
    return tensor.data_ptr() + (places.reshape(-1, 1) * size + torch.arange(size)).reshape(-1)
