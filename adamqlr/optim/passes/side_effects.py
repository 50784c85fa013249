"""What a step's first pass must leave as it is, as later ones start from it: the minibatch, and what is not trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import methodcaller
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.passes.network import leaves
from adamqlr.optim.torch_private import versions

_address_of = methodcaller("data_ptr")
# Others, of quantized models say, are never moved.
_PRECISIONS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class SideEffects:
    """Refuses passes that write where no replay puts anything back.

    Args:
        model: The model.
        flat: The parameters that are trained.
    """

    def __init__(self, model: nn.Module, flat: FlatParameters) -> None:
        left_out = set(map(id, flat.parameters))
        # Embeddings with a largest norm write into themselves, the same each time.
        for module in model.modules():
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
                left_out.add(id(module._parameters.get("weight")))
        untrained = {
            name: parameter
            for name, parameter in model.named_parameters()
            if id(parameter) not in left_out and type(parameter) is nn.Parameter and parameter.dtype in _PRECISIONS
        }
        self._names, self._untrained = list(untrained), list(untrained.values())
        self._is_first = True

    @contextmanager
    def refused(self, inputs: Any, targets: Any) -> Iterator[None]:
        """Within it runs a pass.

        Raises:
            ValueError: It has changed the minibatch in place, or a parameter that is not trained.
        """
        batches = {"inputs": leaves(inputs), "targets": leaves(targets)}
        written = {name: versions(batch) for name, batch in batches.items()}
        marks = self._marks()
        yield
        for name, batch in batches.items():
            if versions(batch) != written[name]:
                raise ValueError(
                    f"the forward pass or the loss changes the {name} in place, and later passes of the step would "
                    "see others: clone them there, and do without inplace=True in the first layer"
                )
        # What is written by way of ``data`` has no version: this once, the step looks at the numbers.
        found = self._marks()
        for name, before, after in zip(self._names, marks, found, strict=True):
            if before != after:
                raise ValueError(
                    f"the forward pass moves {name}, which is not trained, and later passes of the step would move it "
                    "again: move it between steps, or keep it as a buffer"
                )
        self._is_first = False

    def _marks(self) -> list[Any]:
        """Return what differs for each untrained parameter once it has moved."""
        untrained = self._untrained
        marks: list[Any] = list(zip(map(_address_of, untrained), versions(untrained), strict=True))
        if self._is_first and not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
            return list(zip(marks, map(_sum_of, untrained), strict=True))
        return marks


def _sum_of(tensor: Tensor) -> str:
    # As text, numbers that are none are equal.
    return float(tensor.detach().sum(dtype=torch.float64)).hex()
