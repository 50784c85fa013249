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

    Args:
        module: The layer.
        parameters: Its trained parameters.
        state: Where the averages live.
    """

    def __init__(self, module: nn.Module, parameters: list[nn.Parameter], state: State) -> None:
        self.module, self.parameters = module, parameters
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
        # Sequences may come first, as with batch_first=False.
        if len(leading) > 1 and leading[0] != cases == leading[1]:
            product = product.transpose(0, 1)
        elif not leading or leading[0] % cases:
            raise ValueError(
                f"K-FAC cannot tell the {cases} cases in what a {type(self.module).__name__} makes, of shape "
                f"{tuple(product.shape)}: put them first, freeze the layer, or use AdamQLR"
            )
        return product.reshape(cases, -1, *shape).sum(dim=1)

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
