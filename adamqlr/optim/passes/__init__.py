"""The passes through a network: its value, gradient, tangents, and its value after the step."""

from torch import nn

from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.passes.differentiated import DifferentiatedNetwork
from adamqlr.optim.passes.losses import Loss
from adamqlr.optim.passes.network import Forward, Network, call_model
from adamqlr.optim.passes.perceptron import PerceptronNetwork, find_layers
from adamqlr.optim.passes.row_losses import row_loss
from adamqlr.optim.passes.union import Processes, UnionNetwork


def network_of(
    model: nn.Module,
    loss: Loss,
    flat: FlatParameters,
    *,
    forward: Forward = call_model,
    microbatch: int | None = None,
    processes: Processes | None = None,
    align_buffers: bool = False,
) -> Network:
    """Return the network with the fastest passes that there are for it: written out where they are known.

    Args:
        model: The module.
        loss: Of its outputs.
        flat: Its parameters.
        forward: How the module is called.
        microbatch: Rows that go through it at a time; None for all.
        processes: Who has other parts of a minibatch; None for nobody.
        align_buffers: Whether buffers are those of the first process.

    Raises:
        ValueError: The module holds several networks, and the loss is none that is known for each on its own.
    """
    differentiated = DifferentiatedNetwork(model, loss, flat, forward)
    if microbatch is not None or processes is not None:
        if flat.members:
            raise ValueError("networks side by side take neither microbatch nor process_group")
        return UnionNetwork(differentiated, microbatch, processes, align_buffers)
    layers, rows = find_layers(model), row_loss(loss)
    if layers is not None and rows is not None and forward is call_model and _trains_all(model, flat):
        return PerceptronNetwork(layers, rows, flat, differentiated)
    if flat.members:
        raise ValueError("networks side by side need 'cross_entropy' or 'half_mse'")
    return differentiated


def _trains_all(model: nn.Module, flat: FlatParameters) -> bool:
    found = list(model.parameters())
    return len(found) == len(flat.parameters) and all(map(lambda one, other: one is other, found, flat.parameters))
