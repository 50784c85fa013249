"""What passes through the layers of a module in one forward pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

_NO_GRADIENTS = "K-FAC needs gradients of each layer that it trains: freeze {}, which has none"
_NOT_ONCE = "K-FAC needs each layer called once in a forward pass, and {} was {}: freeze it, or use AdamQLR"


def _name_of(model: nn.Module, layer: nn.Module) -> str:
    name = next(name for name, module in model.named_modules() if module is layer)
    return f"the module {name!r}" if name else "the model"


class RecordedLayers:
    """What passed through the layers in one forward pass, an entry for each.

    Attributes:
        inputs: Layer inputs, detached.
        outputs: The network's outputs, detached.
        targets: As the loss takes them.
        cases: Rows of what passed.

    Args:
        model: Whose layers they are.
        layers: The layers.
        parameters: Whose gradients are wanted besides.
        targets: As the loss takes them.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[nn.Module], parameters: Sequence[Tensor], targets: Any
    ) -> None:
        self._model, self._layers = model, layers
        self.inputs: Sequence[Tensor] = []
        self.targets = targets
        # Where δ of the layer outputs appears in the backward pass; in-place operations on them do no harm.
        self.edges: list[GradientEdge] = []
        self.is_complete = False
        self._parameters = list(parameters)

    def close(self, outputs: Tensor, cases: int) -> None:
        """Take the network's outputs, with their graph, and the number of rows."""
        self._graph, self.outputs, self.cases, self.is_complete = outputs, outputs.detach(), cases, True

    def back_propagate(self, cotangent: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return δ of each layer's outputs, and the gradient of each parameter asked for, for a δ of the outputs.

        Raises:
            ValueError: The outputs do not depend on a layer.
        """
        wanted: Any = [*self.edges, *self._parameters]
        found = torch.autograd.grad(
            self._graph,
            wanted,
            cotangent.to(self._graph.dtype),
            retain_graph=True,
            allow_unused=True,
        )
        deltas, gradients = found[: len(self.edges)], found[len(self.edges) :]
        for layer, delta in zip(self._layers, deltas, strict=True):
            if delta is None:
                raise ValueError(_NO_GRADIENTS.format(_name_of(self._model, layer)))
        pairs = zip(self._parameters, gradients, strict=True)
        return deltas, [torch.zeros_like(parameter) if one is None else one for parameter, one in pairs]


@contextmanager
def recorded_layers(
    model: nn.Module, layers: Sequence[nn.Module], parameters: Sequence[Tensor], targets: Any
) -> Iterator[RecordedLayers]:
    """Record the forward pass within the context, with an entry for each of ``layers``.

    Raises:
        ValueError: A layer was called more than once, or never, or without gradients, or with sparse inputs.
    """
    calls: dict[nn.Module, tuple[Tensor, GradientEdge]] = {}
    record = RecordedLayers(model, layers, parameters, targets)

    def keep_layer(module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        # Checkpointed blocks run again in the backward pass.
        if record.is_complete:
            return
        if module in calls:
            raise ValueError(_NOT_ONCE.format(_name_of(model, module), "called again"))
        if not output.requires_grad:
            raise ValueError(_NO_GRADIENTS.format(_name_of(model, module)))
        (features,) = [*inputs, *named.values()]
        if features.layout != torch.strided:
            name = _name_of(model, module)
            raise ValueError(f"K-FAC needs dense inputs of {name}: convert them with to_dense(), or use AdamQLR")
        calls[module] = (features.detach(), get_gradient_edge(output))

    # Before others' hooks, which may put another output in the place of the layer's.
    handles = [layer.register_forward_hook(keep_layer, with_kwargs=True, prepend=True) for layer in layers]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()
    for layer in layers:
        if layer not in calls:
            raise ValueError(_NOT_ONCE.format(_name_of(model, layer), "not called"))
    record.inputs = [calls[layer][0] for layer in layers]
    record.edges = [calls[layer][1] for layer in layers]
