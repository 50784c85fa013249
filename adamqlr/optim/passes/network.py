"""What the heuristics ask of a network: θ and g as flat vectors, and the loss around θ on one minibatch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from adamqlr.optim.flat import FlatGradient, FlatParameters

Curvature = Literal["fisher", "hessian"]
Forward = Callable[[nn.Module, Any], Tensor]


class LocalModel(Protocol):
    """The loss on one minibatch around the parameters θ at which it was made.

    Attributes:
        loss: L(θ; B), a number for each network.
        unresolved: By how much L changes with a unit of the outputs' last place, where those came in a lower precision
            than that of L; else None.
    """

    loss: Tensor
    unresolved: Tensor | None

    def curvature(self, directions: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Return Q, its elements vᵢᵀ C vⱼ a number for each network.

        Args:
            directions: v₁ and perhaps v₂, each as one tensor a parameter. Called once.
        """
        ...

    def loss_after(self, weights: Sequence[Tensor]) -> Tensor:
        """Return L(θ + V w; B) for the directions above, once the parameters have moved there. Called once."""
        ...


class LayerRecord(Protocol):
    """What passed through some layers in the forward pass of a minibatch, or of a piece of one.

    Attributes:
        inputs: Each layer's inputs.
        outputs: The network's outputs.
        targets: As the loss takes them.
        cases: Rows of the minibatch, or of the piece.
    """

    inputs: Sequence[Tensor]
    outputs: Tensor
    targets: Any
    cases: int

    def back_propagate(self, cotangent: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return δ of each layer's outputs, and the gradient of each parameter asked for, for a δ of the outputs."""
        ...


class Observer(Protocol):
    """What wants to see the layers, as K-FAC does.

    Attributes:
        layers: Whose inputs and δ it wants.
        parameters: Whose gradients it wants.
    """

    layers: Sequence[nn.Module]
    parameters: Sequence[Tensor]

    def begin(self, cases: int) -> None:
        """Start a minibatch of so many cases."""
        ...

    def observe(self, record: LayerRecord) -> None:
        """See the minibatch, or each of its pieces in turn; nothing here is differentiated."""
        ...

    def end(self, union: "UnionBatch | None") -> None:
        """Finish the minibatch, which other processes may have parts of."""
        ...


class UnionBatch(Protocol):
    """A minibatch that several processes have parts of.

    Attributes:
        share: The share of the cases that are here, a 0-d tensor.
    """

    share: Tensor

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        ...


class Network(Protocol):
    """One network, or several of one architecture side by side. What it returns has no history.

    Attributes:
        flat: θ.
        gradient: g, as of the last call below.
    """

    flat: FlatParameters
    gradient: FlatGradient

    def differentiate(self, inputs: Any, targets: Any) -> Tensor:
        """Set g = ∇L(θ; B) and return L(θ; B), a number for each network."""
        ...

    def linearize(
        self, inputs: Any, targets: Any, curvature: Curvature, observer: Observer | None = None
    ) -> LocalModel:
        """Set g and return a model of the loss with the curvature C of that kind; show the layers to ``observer``."""
        ...


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Return what a model does, called as its inputs suggest: ``model(x)``, ``model(*tuple)`` or ``model(**dict)``.

    Raises:
        TypeError: They suggest nothing.
    """
    # Packed sequences are named tuples.
    if isinstance(inputs, (Tensor, PackedSequence)):
        outputs = model(inputs)
    elif isinstance(inputs, Mapping):
        outputs = model(**inputs)
    elif isinstance(inputs, Iterable):
        outputs = model(*inputs)
    else:
        raise TypeError(
            f"inputs are a {type(inputs).__name__}, with which a model can be called in many ways: say by forward=… how"
        )
    return outputs


def _parts(batch: Any) -> list[Tensor | PackedSequence]:
    """Return the tensors and packed sequences of a minibatch, in any nesting of what may hold them."""
    if isinstance(batch, (Tensor, PackedSequence)):
        return [batch]
    if is_dataclass(batch):
        batch = [getattr(batch, field.name) for field in fields(batch)]
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, (tuple, list)):
        return [part for item in batch for part in _parts(item)]
    return []


def leaves(batch: Any) -> list[Tensor]:
    """Return the tensors of a minibatch: of a tensor, tuple, list, mapping or dataclass, or any nesting of these."""
    found = ([part] if isinstance(part, Tensor) else part for part in _parts(batch))
    return [leaf for part in found for leaf in part if leaf is not None]


def has_rows(inputs: Any) -> bool:
    """Tell whether the inputs' rows can be counted: what a ``forward`` of one's own takes may be anything."""
    return any(leaf.dim() for leaf in leaves(inputs))


def count_rows(inputs: Any) -> int:
    """Return the number of rows, the first dimension of the first tensor that has any dimension.

    A packed sequence has a row for each of its sequences.

    Raises:
        TypeError: The inputs hold no such tensor.
        ValueError: There are none.
    """
    if isinstance(inputs, Tensor) and inputs.dim() and len(inputs):
        return len(inputs)
    found = [part for part in _parts(inputs) if isinstance(part, PackedSequence) or part.dim()]
    if not found:
        raise TypeError(
            f"inputs must be a tensor, or a tuple or dict of tensors, got {type(inputs).__name__}: others need "
            "forward=…, and neither microbatch nor process_group"
        )
    first = found[0]
    # All sequences have a first time step. These numbers are on the host.
    rows = int(first.batch_sizes[0]) if isinstance(first, PackedSequence) else len(first)
    if rows == 0:
        raise ValueError("the minibatch is empty")
    return rows


def split(batch: Any, rows: int, total: int, name: str) -> list[Any]:
    """Return a minibatch of ``total`` rows in pieces of ``rows``; what has no rows goes into each as it is.

    Rows are the first dimension of tensors, or the items of a list.

    Args:
        batch: The inputs or the targets.
        rows: Rows of a piece.
        total: All rows.
        name: What to call the batch.

    Returns:
        The pieces, of the kind of the whole; mappings as dicts.

    Raises:
        ValueError: Nothing in it has so many rows, or a packed sequence has them.
    """
    count = -(-total // rows)
    if count == 1:
        return [batch]
    pieces = _cut(batch, rows, total, name)
    if pieces is None:
        raise ValueError(
            f"microbatch cuts rows, and no tensor or list of the {name} has the {total} of them that the inputs have"
        )
    return pieces


def _cut(batch: Any, rows: int, total: int, name: str) -> list[Any] | None:
    """Return the pieces; None for what has no rows."""
    if isinstance(batch, Tensor):
        return list(batch.split(rows)) if batch.dim() and len(batch) == total else None
    if isinstance(batch, PackedSequence):
        raise ValueError(
            f"microbatch cannot cut the PackedSequence in the {name}: give padded rows and their lengths, and pack "
            "them in forward=…"
        )
    if not isinstance(batch, (Mapping, tuple, list)):
        return None
    items = dict(batch) if isinstance(batch, Mapping) else dict(enumerate(batch))
    cut = {key: _cut(item, rows, total, name) for key, item in items.items()}
    starts = range(0, total, rows)
    if isinstance(batch, (tuple, list)) and len(batch) == total:
        if not any(cut.values()):
            return [batch[start : start + rows] for start in starts]
        if isinstance(batch, list) or not all(cut.values()):
            raise ValueError(
                f"microbatch cannot tell whether the {total} items of a {type(batch).__name__} in the {name} are rows: "
                "stack rows to one tensor, or name what they are in a dict"
            )
    if not any(cut.values()):
        return None
    pieces = [
        {key: items[key] if parts is None else parts[index] for key, parts in cut.items()}
        for index in range(len(starts))
    ]
    if isinstance(batch, Mapping):
        return list(pieces)
    # A named tuple takes its items one by one.
    make = type(batch)._make if hasattr(batch, "_make") else list if isinstance(batch, list) else tuple
    return [make(piece.values()) for piece in pieces]
