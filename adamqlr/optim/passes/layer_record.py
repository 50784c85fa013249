"""What passes through the layers of a module in one forward pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge


class RecordedLayers:
    """What passed through the layers in one forward pass, an entry for each.

    Attributes:
        inputs: Layer inputs, detached.
        outputs: The network's outputs, detached.
        targets: As the loss takes them.

    Args:
        parameters: Whose gradients are wanted besides.
        targets: As the loss takes them.
    """

    def __init__(self, parameters: Sequence[Tensor], targets: Any) -> None:
        self.inputs: Sequence[Tensor] = []
        self.targets = targets
        # Where δ of the layer outputs appears in the backward pass; in-place operations on them do no harm.
        self.edges: list[GradientEdge] = []
        self.is_complete = False
        self._parameters = list(parameters)

    def close(self, outputs: Tensor) -> None:
        """Take the network's outputs, with their graph."""
        self._graph, self.outputs, self.is_complete = outputs, outputs.detach(), True

    def back_propagate(self, cotangent: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return δ of each layer's outputs, and the gradient of each parameter asked for, for a δ of the outputs."""
        wanted: Any = [*self.edges, *self._parameters]
        found = torch.autograd.grad(
            self._graph,
            wanted,
            cotangent.to(self._graph.dtype),
            retain_graph=True,
            allow_unused=True,
            materialize_grads=bool(self._parameters),
        )
        return found[: len(self.edges)], found[len(self.edges) :]


@contextmanager
def recorded_layers(
    layers: Sequence[nn.Module], parameters: Sequence[Tensor], targets: Any
) -> Iterator[RecordedLayers]:
    """Record the forward pass within the context, with an entry for each of ``layers``.

    Raises:
        ValueError: A layer was called more than once, or never, or without gradients.
    """
    calls: dict[nn.Module, tuple[Tensor, GradientEdge]] = {}
    record = RecordedLayers(parameters, targets)

    def keep_layer(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # Checkpointed blocks run again in the backward pass.
        if record.is_complete:
            return
        if module in calls:
            raise ValueError(f"K-FAC needs each layer called once in a forward pass: {module} was called again")
        if not output.requires_grad:
            raise ValueError(f"K-FAC needs gradients of each layer that it trains: freeze {module}, which has none")
        calls[module] = (inputs[0].detach(), get_gradient_edge(output))

    handles = [layer.register_forward_hook(keep_layer) for layer in layers]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()
    for layer in layers:
        if layer not in calls:
            raise ValueError(f"K-FAC needs each layer called once in a forward pass: {layer} was not called")
    record.inputs = [calls[layer][0] for layer in layers]
    record.edges = [calls[layer][1] for layer in layers]
