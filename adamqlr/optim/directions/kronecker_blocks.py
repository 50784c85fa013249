"""K-FAC's curvature of linear layers and convolutions: Kronecker factors."""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.nn import functional

from adamqlr.optim.directions.kronecker_factors import KroneckerInverse, add_second_moment, damped_inverses
from adamqlr.optim.passes.perceptron import PerceptronPack, members_of
from adamqlr.optim.state import State
from adamqlr.optim.torch_private import copy_all

# Patches of this many elements at a time are cut out of a convolution's inputs: 64 MB in single precision.
_PATCH_ELEMENTS = 2**24


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

        Returns:
            ``inputs`` as they are.
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
        copy_all(self._parts, list(gradients))
        self._inverse.apply_(self._gradient)
        return self._parts


def invert_blocks(blocks: Sequence[object], weight: Tensor, damping: Tensor) -> None:
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
