"""What a step's first pass must leave as it is, as later ones start from it: the minibatch, and parameters.

Only constraints may move what is trained: doing twice what they do, such as clamping, changes nothing more.
"""

from collections.abc import Callable
from itertools import zip_longest
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.passes.network import leaves
from adamqlr.optim.torch_private import unnoticed, versions

# Others, of quantized models say, are never moved.
_PRECISIONS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# What a constraint leaves when it is imposed again, in units of the largest element's last place.
_ROUNDING = 64


class _Batch:
    """The tensors of inputs or targets as they are now: which ones, and how often each has been written.

    Args:
        batch: The inputs or the targets.
    """

    def __init__(self, batch: Any) -> None:
        self._leaves = leaves(batch)
        self._versions = versions(self._leaves)

    def is_unchanged(self, batch: Any) -> bool:
        """Tell whether the batch still holds the same tensors, and none has been written."""
        found = leaves(batch)
        if len(found) != len(self._leaves) or versions(found) != self._versions:
            return False
        # Mappings that make their tensors at each look hold never the same ones.
        return all(map(is_, found, self._leaves)) or not all(map(is_, found, leaves(batch)))


class Marks(NamedTuple):
    """What differs after a pass that has changed what it must not: of the minibatch, and of parameters."""

    inputs: _Batch
    targets: _Batch
    versions: list[int]
    sums: list[str]


class SideEffects:
    """Refuses passes that write where no replay puts anything back.

    Args:
        model: The model.
        flat: The parameters that are trained.
    """

    def __init__(self, model: nn.Module, flat: FlatParameters) -> None:
        left_out = set(map(id, flat.parameters))
        # Embeddings with a largest norm write into themselves, the same each time.
        normed = {
            id(module._parameters.get("weight"))
            for module in model.modules()
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None
        }
        watched = {
            name: parameter
            for name, parameter in model.named_parameters()
            if id(parameter) not in left_out | normed
            and type(parameter) is nn.Parameter
            and parameter.dtype in _PRECISIONS
        }
        self._untrained = set(watched)
        trained = zip(flat.names, flat.parameters, strict=True)
        watched.update({name: parameter for name, parameter in trained if id(parameter) not in normed})
        self._names, self._watched = list(watched), list(watched.values())
        self._flat, self._constrained = flat, set[str]()
        self._is_first = True

    def marks(self, inputs: Any, targets: Any) -> Marks:
        """Return what differs after a pass that has changed what it must not."""
        return Marks(_Batch(inputs), _Batch(targets), versions(self._watched), self._sums())

    def _sums(self) -> list[str]:
        # What is written by way of ``data`` has no version: this once, the step looks at the numbers.
        return list(map(_sum_of, self._watched)) if self._is_first and not _is_captured() else []

    def check(self, before: Marks, inputs: Any, targets: Any, again: Callable[[], Any]) -> None:
        """Refuse a pass that has changed what it must not.

        Args:
            before: The marks from before it.
            inputs: As then.
            targets: As then.
            again: Runs the forward pass once more.

        Raises:
            ValueError: It has changed the minibatch in place, or a parameter that is not trained, or one that is by
                more than a constraint.
        """
        for name, marks, batch in (("inputs", before.inputs, inputs), ("targets", before.targets, targets)):
            if not marks.is_unchanged(batch):
                raise ValueError(
                    f"the forward pass or the loss changes the {name} in place, and later passes of the step would "
                    "see others: clone them there, put entries into a copy of their dict or list only, and do without "
                    "inplace=True in the first layer"
                )
        found, sums = versions(self._watched), self._sums()
        if (found, sums) != (before.versions, before.sums):
            rows = zip_longest(self._names, before.versions, before.sums, found, sums)
            self._check_moved(
                [name for name, version, total, later, now in rows if (version, total) != (later, now)], again
            )
        self._is_first = False

    def _check_moved(self, names: list[str], again: Callable[[], Any]) -> None:
        for name in names:
            if name in self._untrained:
                raise ValueError(
                    f"the forward pass moves {name}, which is not trained, and later passes of the step would move it "
                    "again: move it between steps, or keep it as a buffer"
                )
        if self._constrained.issuperset(names) or _is_captured():
            return
        before = self._flat.buffer.clone()
        # What has been differentiated already need not mind: all is put back.
        with torch.no_grad(), unnoticed(self._flat.parameters):
            again()
            after = self._flat.buffer.clone()
            self._flat.buffer.copy_(before)
        views = zip(self._flat.names, self._flat.views(before), self._flat.views(after), strict=True)
        for name, once, twice in views:
            # Rounding is no movement. This once, the step looks at the numbers.
            tolerance = _ROUNDING * torch.finfo(once.dtype).eps * float(once.abs().max())
            if not torch.allclose(once, twice, rtol=0.0, atol=tolerance, equal_nan=True):
                raise ValueError(
                    f"the forward pass moves {name}, and later passes of the step would move it again: move it between "
                    "steps, or compute what the pass needs from it without changing it"
                )
        self._constrained.update(names)


def _is_captured() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _sum_of(tensor: Tensor) -> str:
    # As text, numbers that are none are equal.
    return float(tensor.detach().sum(dtype=torch.float64)).hex()
