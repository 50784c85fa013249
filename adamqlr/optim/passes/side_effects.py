"""What a step's first pass must leave as it is, as later ones start from it: the minibatch, and what is not trained."""

from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.passes.network import leaves
from adamqlr.optim.torch_private import versions

# Versions of inputs, targets and untrained parameters, and sums of the latter.
Marks = tuple[list[int], list[int], list[int], list[str]]
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

    def marks(self, inputs: Any, targets: Any) -> Marks:
        """Return what differs after a pass that has changed what it must not."""
        # What is written by way of ``data`` has no version: this once, the step looks at the numbers.
        looks = self._is_first and not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())
        sums = list(map(_sum_of, self._untrained)) if looks else []
        return versions(leaves(inputs)), versions(leaves(targets)), versions(self._untrained), sums

    def check(self, before: Marks, inputs: Any, targets: Any) -> None:
        """Refuse a pass that has changed what it must not.

        Args:
            before: The marks from before it.
            inputs: As then.
            targets: As then.

        Raises:
            ValueError: It has changed the minibatch in place, or a parameter that is not trained.
        """
        after = self.marks(inputs, targets)
        if after == before:
            self._is_first = False
            return
        for name, written, later in zip(("inputs", "targets"), before, after, strict=False):
            if written != later:
                raise ValueError(
                    f"the forward pass or the loss changes the {name} in place, and later passes of the step would "
                    "see others: clone them there, and do without inplace=True in the first layer"
                )
        rows = zip_longest(self._names, *before[2:], *after[2:])
        moved = next(name for name, version, total, later, found in rows if (version, total) != (later, found))
        raise ValueError(
            f"the forward pass moves {moved}, which is not trained, and later passes of the step would move it again: "
            "move it between steps, or keep it as a buffer"
        )


def _sum_of(tensor: Tensor) -> str:
    # As text, numbers that are none are equal.
    return float(tensor.detach().sum(dtype=torch.float64)).hex()
