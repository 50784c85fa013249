"""Which curvature block K-FAC has for each layer of a network, and one for all other parameters."""

from typing import Protocol

from torch import Tensor, nn

from adamqlr.optim.directions.diagonal_blocks import DiagonalBlock, NormalizationBlock
from adamqlr.optim.directions.kronecker_blocks import KroneckerBlock
from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.passes.perceptron import PerceptronPack
from adamqlr.optim.state import State


class LayerBlock(Protocol):
    """The approximate Fisher of one layer's trained parameters, as moving averages times their weight.

    Attributes:
        module: The layer, or what holds it.
        parameters: Its trained parameters.
        averages: The averages, which are sums over the cases divided by their number.
    """

    module: nn.Module
    parameters: list[nn.Parameter]
    averages: list[Tensor]

    def add_inputs(self, inputs: Tensor, cases: int, decay: float) -> Tensor:
        """Add a minibatch's layer inputs; return what :meth:`add_cotangents` wants to know of them.

        Args:
            inputs: The layer's inputs, of the whole minibatch or of a piece of it.
            cases: The number of cases in the whole.
            decay: What the averages are multiplied with first: 1 after the first piece.
        """
        ...

    def add_cotangents(self, features: Tensor, cotangents: Tensor, rows: int, cases: int, decay: float) -> None:
        """Add back-propagated δ, of the shape of the layer's outputs.

        Args:
            features: What :meth:`add_inputs` returned.
            cotangents: δ.
            rows: The number of cases that they are of: a layer may see the positions of each in any order.
            cases: The number of cases in the whole.
            decay: As above.
        """
        ...


def curvature_blocks(
    model: nn.Module, flat: FlatParameters, state: State, keep_inverses: bool
) -> tuple[list[LayerBlock], DiagonalBlock | None]:
    """Return a block for each layer that K-FAC knows, and one for all parameters elsewhere, if there are any.

    A parameter that several layers share is in none of them.
    """
    if isinstance(model, PerceptronPack):
        return [KroneckerBlock(model, list(layer), state, keep_inverses) for layer in model.layers()], None
    trained = {id(parameter): parameter for parameter in flat.parameters}
    uses: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    blocks: list[LayerBlock] = []
    # Such modules take the positions of sequences first, and so may what is beside them.
    may_turn = any(getattr(module, "batch_first", True) is False for module in model.modules())
    for module in model.modules():
        own = [p for p in module.parameters(recurse=False) if id(p) in trained]
        if own and is_known(module) and all(uses[id(parameter)] == 1 for parameter in own):
            blocks.append(_block(module, own, state, keep_inverses, may_turn))
            for parameter in own:
                del trained[id(parameter)]
    return blocks, DiagonalBlock(list(trained.values()), state) if trained else None


def is_known(module: nn.Module) -> bool:
    """Tell whether K-FAC has a block for the layer: linear, a convolution without groups, or a normalization."""
    if isinstance(module, nn.Conv2d) and module.groups != 1:
        return False
    # A subclass with another forward may compute anything, and attention never calls its own projection.
    norms = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    kinds = (nn.Linear, nn.Conv2d, *norms)
    calls = (kind for kind in kinds if isinstance(module, kind))
    is_called = not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
    names = {name for name, _ in module.named_parameters(recurse=False)}
    return is_called and names <= {"weight", "bias"} and any(type(module).forward is kind.forward for kind in calls)


def _block(
    module: nn.Module, parameters: list[nn.Parameter], state: State, keep_inverse: bool, may_turn: bool
) -> LayerBlock:
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        return KroneckerBlock(module, parameters, state, keep_inverse)
    return NormalizationBlock(module, parameters, state, may_turn)
