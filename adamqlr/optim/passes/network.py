"""A network as the heuristics see it: θ and g as flat vectors, and the loss around θ on one minibatch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from adamqlr.optim.flat import FlatGradient, FlatParameters

Curvature = Literal["fisher", "hessian"]
Forward = Callable[[nn.Module, Any], Tensor]


class LocalModel(Protocol):
    """The loss on one minibatch around the parameters θ at which it was made.

    Attributes:
        loss: L(θ; B), a number for each network.
    """

    loss: Tensor

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
    """

    inputs: Sequence[Tensor]
    outputs: Tensor
    targets: Any

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
        processes: How many.
        share: The share of the cases that are here, a 0-d tensor.
    """

    processes: int
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
    """Return what a model does, called as its inputs suggest: ``model(x)``, ``model(*tuple)`` or ``model(**dict)``."""
    if isinstance(inputs, Tensor):
        outputs = model(inputs)
    elif isinstance(inputs, Mapping):
        outputs = model(**inputs)
    else:
        outputs = model(*inputs)
    return outputs


def leaves(batch: Any) -> list[Tensor]:
    """Return the tensors of a minibatch: of a tensor, a tuple or list, a mapping, or any nesting of these."""
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, (tuple, list)):
        return [leaf for item in batch for leaf in leaves(item)]
    return []


def count_rows(inputs: Any) -> int:
    """Return the number of rows, the first dimension of the first tensor.

    Raises:
        TypeError: The inputs hold no tensor.
        ValueError: There are none.
    """
    if isinstance(inputs, Tensor) and inputs.dim() and len(inputs):
        return len(inputs)
    found = leaves(inputs)
    if not found:
        raise TypeError(f"inputs must be a tensor, or a tuple or dict of tensors, got {type(inputs).__name__}")
    if found[0].dim() == 0 or len(found[0]) == 0:
        raise ValueError("the minibatch is empty")
    return len(found[0])


def split(batch: Any, rows: int, total: int) -> list[Any]:
    """Cut a minibatch of ``total`` rows into pieces of ``rows``; what has no rows goes into each as it is."""
    pieces = -(-total // rows)
    if isinstance(batch, Tensor):
        return list(batch.split(rows)) if batch.dim() and len(batch) == total else [batch] * pieces
    if isinstance(batch, Mapping):
        cut = {name: split(value, rows, total) for name, value in batch.items()}
        return [{name: values[piece] for name, values in cut.items()} for piece in range(pieces)]
    if isinstance(batch, (tuple, list)):
        columns = [split(value, rows, total) for value in batch]
        return [tuple(column[piece] for column in columns) for piece in range(pieces)]
    return [batch] * pieces
