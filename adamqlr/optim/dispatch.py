"""Which passes a network gets: written out where they are known, else PyTorch's differentiation."""

from torch import nn

from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.losses import Loss
from adamqlr.optim.network import DifferentiatedNetwork, Network
from adamqlr.optim.perceptron import PerceptronNetwork, find_layers
from adamqlr.optim.row_losses import row_loss


def network_of(model: nn.Module, loss: Loss, flat: FlatParameters) -> Network:
    """Return the network with the fastest passes that there are for it.

    Raises:
        ValueError: The module holds several networks, and the loss is none that is known for each on its own.
    """
    layers, rows = find_layers(model), row_loss(loss)
    differentiated = DifferentiatedNetwork(model, loss, flat)
    if layers is not None and rows is not None:
        return PerceptronNetwork(layers, rows, flat, differentiated)
    if flat.members:
        raise ValueError("networks side by side need 'cross_entropy' or 'half_mse'")
    return differentiated


def has_own_passes(model: nn.Module, loss: Loss) -> bool:
    """Tell whether a network has passes that are written out."""
    return find_layers(model) is not None and row_loss(loss) is not None
