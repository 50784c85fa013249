"""K-FAC's curvature where it has no Kronecker factors: diagonals, of normalizations and of all other parameters."""

from collections.abc import Sequence

import torch
from torch import Size, Tensor, nn
from torch.nn import functional

from adamqlr.optim.state import State


class NormalizationBlock:
    """The diagonal of the Fisher for the scale and shift of a normalization layer, as in kfac-jax.

    With x̂ the normalized input, case b adds (Σ x̂ δ)² / B for the scale and (Σ δ)² / B for the shift, the sums over
    its positions.

    Sequences come with their cases first or, as with ``batch_first=False``, with their positions. Where there are as
    many of these as of those, the layer's layout is what it was in other minibatches. Before there are any, cases come
    first, as in most models; a later minibatch that shows the opposite is an error, and so is a model that has both.

    Args:
        module: The layer.
        parameters: Its trained parameters.
        state: Where the averages live.
        may_turn: Whether something in the model is known to take positions first.
    """

    def __init__(self, module: nn.Module, parameters: list[nn.Parameter], state: State, may_turn: bool) -> None:
        self.module, self.parameters = module, parameters
        self._may_turn = may_turn
        # Whether positions come first: as seen, and as assumed.
        self._seen: bool | None = None
        self._assumed: bool | None = None
        self._scale_first = parameters[0] is module.weight
        self.averages = [
            state.of_parameter(parameters[0], f"diagonal_{index}", torch.zeros_like(p, requires_grad=False))
            for index, p in enumerate(parameters)
        ]

    def add_inputs(self, inputs: Tensor, cases: int, decay: float) -> Tensor:
        """Return x̂; nothing is averaged of the inputs alone."""
        return _normalized(self.module, inputs.to(self.averages[0].dtype)) if self._scale_first else inputs

    def add_cotangents(self, features: Tensor, cotangents: Tensor, rows: int, cases: int, decay: float) -> None:
        """Add δ, of the shape of the layer's outputs."""
        cotangents = cotangents.to(self.averages[0].dtype)
        products = [features * cotangents] if self._scale_first else []
        if len(self.parameters) > len(products):
            products.append(cotangents)
        for diagonal, product in zip(self.averages, products, strict=True):
            sums = self._sums_of_cases(product, diagonal.shape, rows)
            diagonal.mul_(decay).add_(sums.square().sum(dim=0), alpha=1 / cases)

    def _sums_of_cases(self, product: Tensor, shape: Size, cases: int) -> Tensor:
        """Return the sums over each case's positions, of shape (cases, *shape).

        Raises:
            ValueError: It cannot be told which positions are of which case.
        """
        if not isinstance(self.module, nn.LayerNorm):
            product = product.reshape(*product.shape[:2], -1).sum(dim=2)
        leading = product.shape[: product.dim() - len(shape)]
        if self._positions_come_first(leading, cases):
            product = product.transpose(0, 1)
        return product.reshape(cases, -1, *shape).sum(dim=1)

    def _positions_come_first(self, leading: Size, cases: int) -> bool:
        """Tell whether the first of the leading dimensions is that of positions, and the second that of cases."""
        of_first = bool(leading) and leading[0] % cases == 0
        of_second = len(leading) > 1 and leading[1] == cases
        if of_first and of_second and cases > 1:
            return self._remembered(leading)
        if not of_first and not of_second:
            raise self._cannot_tell(f"the {cases} cases", leading, "put them first")
        if self._assumed is not None and self._assumed != of_second and cases > 1:
            raise self._cannot_tell(
                "cases from positions", leading, "give it no minibatches with as many of both before"
            )
        if cases > 1:
            self._seen = of_second
        return of_second and not of_first

    def _remembered(self, leading: Size) -> bool:
        """Return what earlier minibatches have shown, or what is assumed before there are any."""
        if self._seen is not None:
            return self._seen
        is_square = leading[0] == leading[1]
        if is_square and self._may_turn and len(leading) == 2:
            raise self._cannot_tell(
                "cases from positions",
                leading,
                "begin with a minibatch of another number of rows, use batch_first=True",
            )
        # More cases than rows are windows of them, which are rarely as many as a sequence is long.
        self._assumed = not is_square
        return self._assumed

    def _cannot_tell(self, what: str, leading: Size, cure: str) -> ValueError:
        return ValueError(
            f"K-FAC cannot tell {what} in what a {type(self.module).__name__} makes, of shape "
            f"{(*leading, *self.averages[0].shape)}: {cure}, freeze the layer, or use AdamQLR"
        )

    def precondition(self, gradients: Sequence[Tensor], weight: Tensor, damping: Tensor) -> list[Tensor]:
        """Return ∇ / (diagonal + λ)."""
        return [g / (diagonal / weight + damping) for g, diagonal in zip(gradients, self.averages, strict=True)]


class DiagonalBlock:
    """kfac-jax's ``NaiveDiagonal`` for parameters in no layer that is known: their sampled gradient², divided by B.

    Args:
        parameters: The parameters.
        state: Where the averages live.
    """

    def __init__(self, parameters: list[nn.Parameter], state: State) -> None:
        self.parameters = parameters
        blank = [torch.zeros_like(parameter, requires_grad=False) for parameter in parameters]
        self.averages = [state.of_parameter(p, "diagonal", zero) for p, zero in zip(parameters, blank, strict=True)]
        self.sums = [torch.zeros_like(zero) for zero in blank]

    def begin(self) -> None:
        """Start a minibatch."""
        for total in self.sums:
            total.zero_()

    def add_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Add Σ_b Jᵀδ_b of a minibatch, or of a piece of it."""
        for total, gradient in zip(self.sums, gradients, strict=True):
            total.add_(gradient)

    def end(self, cases: Tensor | float, decay: float) -> None:
        """Add the squares of the minibatch's sums to the averages."""
        for diagonal, total in zip(self.averages, self.sums, strict=True):
            diagonal.mul_(decay).add_(total.square() / cases)

    def precondition(self, gradients: Sequence[Tensor], weight: Tensor, damping: Tensor) -> list[Tensor]:
        """Return ∇ / (diagonal + λ)."""
        return [g / (diagonal / weight + damping) for g, diagonal in zip(gradients, self.averages, strict=True)]


def _normalized(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return the layer's output before its scale and shift."""
    if isinstance(module, nn.LayerNorm):
        return functional.layer_norm(inputs, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.GroupNorm):
        return functional.group_norm(inputs, module.num_groups, eps=module.eps)
    assert isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
    if module.training or module.running_mean is None:
        return functional.batch_norm(inputs, None, None, training=True, eps=module.eps)
    return functional.batch_norm(inputs, module.running_mean, module.running_var, eps=module.eps)
