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
        open_ones: list[_Stretch] = []
        for stretch in sorted(stretches, key=lambda one: one.start):
            open_ones = [one for one in open_ones if one.end > stretch.start]
            for other in open_ones:
                if (stretch.name in trained or other.name in trained) and _overlap(other, stretch):
                    raise ValueError(
                        f"{other.name} and {stretch.name} share their memory, which the optimizer has to move: tie "
                        "them as one parameter, by assigning the parameter itself and not its data, or clone one"
                    )
            open_ones.append(stretch)


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
    start = tensor.data_ptr()
    return _Stretch(start, start + _span(tensor) * tensor.element_size(), name, tensor)


def _span(tensor: Tensor) -> int:
    """Return how many elements lie from a tensor's first to its last, others' included."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _overlap(first: _Stretch, second: _Stretch) -> bool:
    """Tell whether two tensors whose stretches overlap have an element in common, as columns of a matrix have not."""
    one, other = first.tensor, second.tensor
    if one.element_size() != other.element_size():
        return True
    ahead = (second.start - first.start) // one.element_size()
    is_taken = torch.zeros(max(_span(one), ahead + _span(other)), dtype=torch.bool)
    is_taken.as_strided(one.shape, one.stride()).fill_(True)
    return bool(is_taken.as_strided(other.shape, other.stride(), ahead).any())
