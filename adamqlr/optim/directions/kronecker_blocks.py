"""K-FAC's curvature of linear layers and convolutions: Kronecker factors."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from adamqlr.optim.constants import constant, ones
from adamqlr.optim.directions.kronecker_factors import KroneckerInverse, add_second_moment
from adamqlr.optim.passes.perceptron import PerceptronPack, members_of
from adamqlr.optim.state import State

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

    Attributes:
        positions: How many a case has in the minibatch, as its pieces have shown; None before the first.
        inverse: The damped inverse of the averages.
        parts: Where it takes V = [∇W, ∇b], in the shapes of the parameters.
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
        sizes = [("input", input_size), ("output", output_size)]
        self._input_factor, self._output_factor = (self._square(state, f"{w}_factor", size) for w, size in sizes)
        self.averages, self._dtype = [self._input_factor, self._output_factor], self._input_factor.dtype
        # The parts of A that belong to the weight and to the bias; finding them takes as long as adding to them.
        features = input_size - self._has_bias
        self._of_weight = self._input_factor[..., :features, :features]
        self._of_bias, self._of_one = self._input_factor[..., -1, :features], self._input_factor[..., -1, -1]
        kept = None
        if keep_inverse:
            place, other = (self._square(state, f"{which}_cholesky", size) for which, size in sizes)
            kept = place, other, state.of_parameter(parameters[0], "scale", self._zeros())
        self.positions: float | None = None
        self.inverse = KroneckerInverse(self._input_factor, self._output_factor, kept)
        parts = self.inverse.gradient.split([features, input_size - features], dim=-1)
        self.parts = [part.view(p.shape) for part, p in zip(filter(Tensor.numel, parts), parameters, strict=True)]

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

    def add_inputs(self, inputs: Tensor, cases: int, decay: float) -> Tensor:
        """Add layer inputs, of shape (rows, …, features) or (rows, channels, height, width).

        Those of networks side by side are of shape (members, rows, features), or the first two dimensions are one if
        all have the same.

        Returns:
            ``inputs`` as they are.
        """
        for columns in self._columns(_in(inputs, self._dtype)):
            if self._has_weight:
                add_second_moment(self._of_weight, columns, 1 / cases, decay)
            if self._has_bias:
                self._add_bias(columns, cases, decay)
            decay = 1.0
        return inputs

    def _add_bias(self, columns: Tensor, cases: int, decay: float) -> None:
        """Add the last row of Σ x xᵀ, which belongs to the 1 in x: the sum of the inputs, and their number."""
        count = columns.shape[-1]
        if self._has_weight and (self._members or columns.device.type != "cpu"):
            share = constant(1 / cases, columns.dtype, columns.device)
            torch.add(columns.sum(dim=-1).mul_(share), self._of_bias, alpha=decay, out=self._of_bias)
        elif self._has_weight:
            self._of_bias.addmv_(columns, ones(count, columns.dtype, columns.device), beta=decay, alpha=1 / cases)
        added = constant(count / cases, columns.dtype, columns.device)
        torch.add(added, self._of_one, alpha=decay, out=self._of_one)

    def _columns(self, inputs: Tensor) -> Iterable[Tensor]:
        """Return the vectors that the weight is multiplied with, as columns."""
        if isinstance(self.module, nn.Conv2d):
            # One image may come without a dimension for the batch.
            return _patches(self.module, inputs if inputs.dim() == 4 else inputs.unsqueeze(0))
        if not self._members and inputs.dim() != 2:
            inputs = inputs.reshape(-1, inputs.shape[-1])
        return [inputs.mT]

    def add_cotangents(self, features: Tensor, cotangents: Tensor, rows: int, cases: int, decay: float) -> None:
        """Add δ, of the shape of the layer's outputs.

        Raises:
            ValueError: An earlier piece of the minibatch had another number of positions a case.
        """
        columns = _in(cotangents, self._dtype)
        if isinstance(self.module, nn.Conv2d):
            columns = columns.movedim(-3, 0).flatten(1)
        elif self._members or columns.dim() == 2:
            columns = columns.mT
        else:
            columns = columns.reshape(-1, columns.shape[-1]).mT
        # A layer that no row has reached, an expert say, has seen nothing of it.
        positions = 1 if self._members else max(columns.shape[1], 1) / rows
        if self.positions not in (None, positions):
            raise ValueError(
                f"pieces of a minibatch show {self.module} different numbers of positions a case, of which K-FAC takes "
                "no mean: use microbatch=None, or AdamQLR"
            )
        self.positions = positions
        add_second_moment(self._output_factor, columns, 1 / (cases * positions), decay)


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


def _in(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # To find that nothing is to be done takes as long as a small kernel.
    return tensor if tensor.dtype == dtype else tensor.to(dtype)
