"""K-FAC's curvature blocks: one for each layer that it knows, and one for all other parameters."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from adamqlr.optim.directions.kronecker_factors import KroneckerInverse, add_second_moment, damped_inverses
from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.passes.perceptron import PerceptronPack, members_of
from adamqlr.optim.state import State

# Patches of this many elements at a time are cut out of a convolution's inputs: 64 MB in single precision.
_PATCH_ELEMENTS = 2**24


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

    def add_inputs(self, inputs: Tensor, cases: int) -> Tensor:
        """Add a minibatch's layer inputs; return what :meth:`add_cotangents` wants to know of them.

        Args:
            inputs: The layer's inputs, of the whole minibatch or of a piece of it.
            cases: The number of cases in the whole.
        """
        ...

    def add_cotangents(self, features: Tensor, cotangents: Tensor, cases: int) -> None:
        """Add back-propagated δ, of the shape of the layer's outputs."""
        ...

    def precondition(self, gradients: Sequence[Tensor], weight: Tensor, damping: Tensor) -> list[Tensor]:
        """Return the damped inverse times the gradient, a tensor for each parameter."""
        ...


class KroneckerBlock:
    """A ⊗ G for a linear layer or a convolution, or for one layer of several perceptrons side by side.

    A = Σ x xᵀ / B over cases and positions with x = [layer input or patch, 1], G = Σ δ δᵀ / (B · positions)
    (Martens & Grosse 2015, section 3; Grosse & Martens 2016, section 3, normalized as in kfac-jax).

    Args:
        module: The layer; for networks side by side the module that holds them.
        parameters: Its trained parameters.
        state: Where the averages live.
        keep_inverse: Whether the inverse outlives a step.
    """

    def __init__(
        self,
        module: nn.Linear | nn.Conv2d | PerceptronPack,
        parameters: list[nn.Parameter],
        state: State,
        keep_inverse: bool,
    ) -> None:
        self.module: nn.Module = module
        self.parameters = parameters
        self._members = members_of(module)
        input_size, output_size = self._sizes(module)
        self._input_factor = self._square(state, "input_factor", input_size)
        self._output_factor = self._square(state, "output_factor", output_size)
        self.averages = [self._input_factor, self._output_factor]
        # The parts of A that belong to the weight and to the bias; finding them takes as long as adding to them.
        features = input_size - self._has_bias
        self._of_weight = self._input_factor[..., :features, :features]
        self._of_bias, self._of_one = self._input_factor[..., -1, :features], self._input_factor[..., -1, -1]
        # V = [∇W, ∇b], and its parts in the shapes of the parameters.
        self._gradient = self._zeros(output_size, input_size)
        parts = self._gradient.split([features, input_size - features], dim=-1)
        self._parts = [part.view(p.shape) for part, p in zip(filter(Tensor.numel, parts), parameters, strict=True)]
        self._inverse: KroneckerInverse | None = None
        self._keeps = keep_inverse
        if keep_inverse:
            self._inverse = KroneckerInverse(
                self._square(state, "input_cholesky", input_size),
                self._square(state, "output_cholesky", output_size),
                state.of_parameter(parameters[0], "scale", self._zeros()),
            )

    def _sizes(self, module: nn.Linear | nn.Conv2d | PerceptronPack) -> tuple[int, int]:
        """Return d_A and d_G, and keep which of weight and bias are trained."""
        if isinstance(module, PerceptronPack):
            self._has_weight = self._has_bias = True
            _, outputs, features = self.parameters[0].shape
            return features + 1, outputs
        # Looking at a parametrized weight would compute it, and some move buffers as they do.
        weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
        self._has_weight = weight is not None and any(parameter is weight for parameter in self.parameters)
        self._has_bias = any(parameter is bias for parameter in self.parameters)
        features = weight[0].numel() if weight is not None and self._has_weight else 0
        return features + self._has_bias, module.out_features if isinstance(module, nn.Linear) else module.out_channels

    def _zeros(self, *shape: int) -> Tensor:
        return self.parameters[0].new_zeros((*self._members, *shape), requires_grad=False)

    def _square(self, state: State, name: str, size: int) -> Tensor:
        # With contiguous columns, as LAPACK wants them.
        return state.of_parameter(self.parameters[0], name, self._zeros(size, size).mT)

    def add_inputs(self, inputs: Tensor, cases: int) -> Tensor:
        """Add layer inputs, of shape (rows, …, features) or (rows, channels, height, width).

        Those of networks side by side are of shape (members, rows, features), or the first two dimensions are one if
        all have the same.
        """
        for columns in self._columns(inputs.to(self._input_factor.dtype)):
            if self._has_weight:
                add_second_moment(self._of_weight, columns, 1 / cases)
            if self._has_bias:
                if self._has_weight:
                    self._of_bias.add_(columns.sum(dim=-1), alpha=1 / cases)
                self._of_one.add_(columns.shape[-1] / cases)
        return inputs

    def _columns(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield the vectors that the weight is multiplied with, as columns."""
        if isinstance(self.module, nn.Conv2d):
            yield from _patches(self.module, inputs)
        else:
            yield inputs.mT if self._members else inputs.reshape(-1, inputs.shape[-1]).T

    def add_cotangents(self, features: Tensor, cotangents: Tensor, cases: int) -> None:
        """Add δ, of the shape of the layer's outputs."""
        cotangents = cotangents.to(self._output_factor.dtype)
        if self._members:
            add_second_moment(self._output_factor, cotangents.mT, 1 / cases)
            return
        if isinstance(self.module, nn.Linear):
            columns = cotangents.reshape(-1, cotangents.shape[-1]).T
        else:
            columns = cotangents.transpose(0, 1).flatten(1)
        positions = columns.shape[1] // len(cotangents)
        add_second_moment(self._output_factor, columns, 1 / (cases * positions))

    def _keep(self, inverse: KroneckerInverse) -> None:
        if not self._keeps:
            self._inverse = inverse
            return
        assert self._inverse is not None
        for kept, new in zip(self._inverse, inverse, strict=True):
            kept.copy_(new)

    def precondition(self, gradients: Sequence[Tensor], weight: Tensor, damping: Tensor) -> list[Tensor]:
        """Return G⁻¹ V A⁻¹ with V = [∇W, ∇b] and the inverses as of the last :func:`invert_blocks`.

        It is good until the next call.
        """
        assert self._inverse is not None
        torch._foreach_copy_(self._parts, list(gradients))
        self._inverse.apply_(self._gradient)
        return self._parts


def invert_blocks(blocks: Sequence[LayerBlock], weight: Tensor, damping: Tensor) -> None:
    """Renew the damped inverses of Kronecker factors; a diagonal is inverted where it is used, at every step.

    Args:
        blocks: Any blocks.
        weight: The averages' weight.
        damping: λ.
    """
    factored = [block for block in blocks if isinstance(block, KroneckerBlock)]
    if factored:
        pairs = [(block.averages[0], block.averages[1]) for block in factored]
        for block, inverse in zip(factored, damped_inverses(pairs, weight, damping), strict=True):
            block._keep(inverse)


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

    def add_inputs(self, inputs: Tensor, cases: int) -> Tensor:
        """Return x̂; nothing is averaged of the inputs alone."""
        return _normalized(self.module, inputs.to(self.averages[0].dtype)) if self._scale_first else inputs

    def add_cotangents(self, features: Tensor, cotangents: Tensor, cases: int) -> None:
        """Add δ, of the shape of the layer's outputs."""
        cotangents = cotangents.to(self.averages[0].dtype)
        products = [features * cotangents] if self._scale_first else []
        if len(self.parameters) > len(products):
            products.append(cotangents)
        for diagonal, product in zip(self.averages, products, strict=True):
            if isinstance(self.module, nn.LayerNorm):
                per_case = product.reshape(len(product), -1, *diagonal.shape).sum(dim=1)
            else:
                per_case = product.reshape(*product.shape[:2], -1).sum(dim=2)
            diagonal.add_(per_case.square().sum(dim=0), alpha=1 / cases)

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

    def end(self, cases: Tensor | float) -> None:
        """Add the squares of the minibatch's sums to the averages."""
        for diagonal, total in zip(self.averages, self.sums, strict=True):
            diagonal.add_(total.square() / cases)

    def precondition(self, gradients: Sequence[Tensor], weight: Tensor, damping: Tensor) -> list[Tensor]:
        """Return ∇ / (diagonal + λ)."""
        return [g / (diagonal / weight + damping) for g, diagonal in zip(gradients, self.averages, strict=True)]


def _patches(convolution: nn.Conv2d, inputs: Tensor) -> Iterator[Tensor]:
    """Yield the patches of ``inputs`` as columns, some cases at a time; rows are ordered as the kernel's elements."""
    mode = "constant" if convolution.padding_mode == "zeros" else convolution.padding_mode
    edges = convolution._reversed_padding_repeated_twice
    padded = functional.pad(inputs, edges, mode=mode) if any(edges) else inputs
    cases, channels, height, width = padded.shape
    (kernel_h, kernel_w), (stride_h, stride_w) = convolution.kernel_size, convolution.stride
    dilation_h, dilation_w = convolution.dilation
    out_h = (height - dilation_h * (kernel_h - 1) - 1) // stride_h + 1
    out_w = (width - dilation_w * (kernel_w - 1) - 1) // stride_w + 1
    case, channel, row, column = padded.stride()
    windows = padded.as_strided(
        (channels, kernel_h, kernel_w, cases, out_h, out_w),
        (channel, row * dilation_h, column * dilation_w, case, row * stride_h, column * stride_w),
    )
    elements = channels * kernel_h * kernel_w
    for chunk in windows.split(max(1, _PATCH_ELEMENTS // (elements * out_h * out_w)), dim=3):
        yield chunk.reshape(elements, -1)


def _normalized(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return the layer's output before its scale and shift."""
    if isinstance(module, nn.LayerNorm):
        return functional.layer_norm(inputs, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.GroupNorm):
        return functional.group_norm(inputs, module.num_groups, eps=module.eps)
    assert isinstance(module, nn.modules.batchnorm._BatchNorm)
    if module.training or module.running_mean is None:
        return functional.batch_norm(inputs, None, None, training=True, eps=module.eps)
    return functional.batch_norm(inputs, module.running_mean, module.running_var, eps=module.eps)


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
    for module in model.modules():
        own = [p for p in module.parameters(recurse=False) if id(p) in trained]
        if own and is_known(module) and all(uses[id(parameter)] == 1 for parameter in own):
            blocks.append(_block(module, own, state, keep_inverses))
            for parameter in own:
                del trained[id(parameter)]
    return blocks, DiagonalBlock(list(trained.values()), state) if trained else None


def is_known(module: nn.Module) -> bool:
    """Tell whether K-FAC has a block for the layer: linear, a convolution without groups, or a normalization."""
    if isinstance(module, nn.Conv2d) and module.groups != 1:
        return False
    # A subclass with another forward may compute anything, and attention never calls its own projection.
    kinds = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    calls = (kind for kind in kinds if isinstance(module, kind))
    is_called = not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
    names = {name for name, _ in module.named_parameters(recurse=False)}
    return is_called and names <= {"weight", "bias"} and any(type(module).forward is kind.forward for kind in calls)


def _block(module: nn.Module, parameters: list[nn.Parameter], state: State, keep_inverse: bool) -> LayerBlock:
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        return KroneckerBlock(module, parameters, state, keep_inverse)
    return NormalizationBlock(module, parameters, state)
