"""What passes through the layers of a network in one forward pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge


class LayerRecord:
    """What passed through the layers in one forward pass, an entry for each.

    Attributes:
        inputs: Layer inputs, detached.
        edges: Where δ of the layer outputs appears in the backward pass; in-place operations on them do no harm.
        output: The model's output, with its graph.
    """

    def __init__(self) -> None:
        self.inputs: list[Tensor] = []
        self.edges: list[GradientEdge] = []
        self.output = torch.empty(0)


@contextmanager
def recorded_layers(model: nn.Module, layers: Sequence[nn.Module]) -> Iterator[LayerRecord]:
    """Record the forward pass of ``model`` within the context, with an entry for each of ``layers``.

    Raises:
        ValueError: A layer was called more than once, or never.
    """
    calls: dict[nn.Module, tuple[Tensor, GradientEdge]] = {}
    record = LayerRecord()

    def keep_layer(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if module in calls:
            raise ValueError(f"K-FAC needs each layer called once in a forward pass: {module} was called again")
        calls[module] = (inputs[0].detach(), get_gradient_edge(output))

    def keep_output(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        record.output = output

    handles = [layer.register_forward_hook(keep_layer) for layer in layers]
    handles.append(model.register_forward_hook(keep_output))
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()
    for layer in layers:
        if layer not in calls:
            raise ValueError(f"K-FAC needs each layer called once in a forward pass: {layer} was not called")
        inputs, edge = calls[layer]
        record.inputs.append(inputs)
        record.edges.append(edge)
