"""K-FAC's curvature blocks, one for each layer that has parameters."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from adamqlr.optim.kronecker import KroneckerInverse, add_second_moment, damped_inverse

# Patches of this many elements at a time are cut out of a convolution's inputs: 64 MB in single precision.
_PATCH_ELEMENTS = 2**24


class CurvatureBlock(Protocol):
    """The approximate Fisher of one layer's trainable parameters, as moving averages times their weight.

    Attributes:
        module: The layer.
        parameters: Its trainable parameters.
    """

    module: nn.Module
    parameters: list[nn.Parameter]

    def decay(self, factor: float) -> None:
        """Multiply the averages by ``factor``, before a minibatch is added."""
        ...

    def add_inputs(self, inputs: Tensor, cases: int) -> Tensor:
        """Add a minibatch's layer inputs; return what :meth:`add_cotangents` wants to know of them."""
        ...

    def add_cotangents(self, features: Tensor, cotangents: Tensor, cases: int) -> None:
        """Add back-propagated δ, of the shape of the layer's outputs."""
        ...

    def invert(self, weight: Tensor, damping: Tensor) -> None:
        """Renew what :meth:`precondition` uses of the averages, with ``weight`` theirs and λ ``damping``."""
        ...

    def precondition(self, gradients: Sequence[Tensor], weight: Tensor, damping: Tensor) -> list[Tensor]:
        """Return the damped inverse times the gradient, a tensor for each parameter."""
        ...

    def state(self, with_inverse: bool) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint needs, what :meth:`invert` made among them or not."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up such tensors."""
        ...


class KroneckerBlock:
    """A ⊗ G for a linear layer or a convolution.

    A = Σ x xᵀ / B over cases and positions with x = [layer input or patch, 1], G = Σ δ δᵀ / (B · positions)
    (Martens & Grosse 2015, section 3; Grosse & Martens 2016, section 3, normalized as in kfac-jax).
    """

    def __init__(self, module: nn.Linear | nn.Conv2d) -> None:
        self.module: nn.Module = module
        weight, bias = module.weight, module.bias
        self._has_weight = weight.requires_grad
        self._has_bias = bias is not None and bias.requires_grad
        self.parameters = [p for p in (weight, bias) if isinstance(p, nn.Parameter) and p.requires_grad]
        input_size = weight[0].numel() * self._has_weight + self._has_bias
        self._input_factor = weight.new_zeros(input_size, input_size, requires_grad=False)
        self._output_factor = weight.new_zeros(len(weight), len(weight), requires_grad=False)
        self._inverse: KroneckerInverse | None = None

    def decay(self, factor: float) -> None:
        """Multiply the averages by ``factor``."""
        self._input_factor.mul_(factor)
        self._output_factor.mul_(factor)

    def add_inputs(self, inputs: Tensor, cases: int) -> Tensor:
        """Add layer inputs, of shape (B, …, features) or (B, channels, height, width)."""
        for columns in self._columns(inputs):
            size = len(columns) * self._has_weight
            if self._has_weight:
                add_second_moment(self._input_factor[:size, :size], columns, 1 / cases)
            if self._has_bias:
                if self._has_weight:
                    self._input_factor[-1, :-1].add_(columns.sum(dim=1), alpha=1 / cases)
                self._input_factor[-1, -1] += columns.shape[1] / cases
        return inputs

    def _columns(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield the vectors that the weight is multiplied with, as columns."""
        if isinstance(self.module, nn.Linear):
            yield inputs.reshape(-1, inputs.shape[-1]).T
        else:
            assert isinstance(self.module, nn.Conv2d)
            yield from _patches(self.module, inputs)

    def add_cotangents(self, features: Tensor, cotangents: Tensor, cases: int) -> None:
        """Add δ, of the shape of the layer's outputs."""
        if isinstance(self.module, nn.Linear):
            columns = cotangents.reshape(-1, cotangents.shape[-1]).T
        else:
            columns = cotangents.transpose(0, 1).flatten(1)
        add_second_moment(self._output_factor, columns, 1 / columns.shape[1])

    def invert(self, weight: Tensor, damping: Tensor) -> None:
        """Renew the damped inverse."""
        self._inverse = damped_inverse(self._input_factor, self._output_factor, weight, damping)

    def precondition(self, gradients: Sequence[Tensor], weight: Tensor, damping: Tensor) -> list[Tensor]:
        """Return G⁻¹ V A⁻¹, with V = [∇W, ∇b] and the inverses as of the last :meth:`invert`."""
        assert self._inverse is not None
        columns = [gradient.reshape(len(self._output_factor), -1) for gradient in gradients]
        product = self._inverse @ torch.cat(columns, dim=1)
        pieces = product.split([column.shape[1] for column in columns], dim=1)
        return [piece.reshape(gradient.shape) for piece, gradient in zip(pieces, gradients, strict=True)]

    def state(self, with_inverse: bool) -> dict[str, Tensor]:
        """Return the averages, of which only the lower triangles count, and the inverse."""
        state = {"input_factor": self._input_factor, "output_factor": self._output_factor}
        return {**state, **self._inverse._asdict()} if with_inverse and self._inverse else state

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up the averages, and the inverse where there is one."""
        self._input_factor.copy_(state["input_factor"])
        self._output_factor.copy_(state["output_factor"])
        present = set(KroneckerInverse._fields) <= set(state)
        self._inverse = KroneckerInverse(*(state[name] for name in KroneckerInverse._fields)) if present else None


class NormalizationBlock:
    """The diagonal of the Fisher for the scale and shift of a normalization layer, as in kfac-jax.

    With x̂ the normalized input, case b adds (Σ x̂ δ)² / B for the scale and (Σ δ)² / B for the shift, the sums over
    its positions.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.parameters = [p for p in (module.weight, module.bias) if isinstance(p, nn.Parameter) and p.requires_grad]
        self._scale_first = self.parameters[0] is module.weight
        self._diagonals = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]

    def decay(self, factor: float) -> None:
        """Multiply the averages by ``factor``."""
        for diagonal in self._diagonals:
            diagonal.mul_(factor)

    def add_inputs(self, inputs: Tensor, cases: int) -> Tensor:
        """Return x̂; nothing is averaged of the inputs alone."""
        return _normalized(self.module, inputs) if self._scale_first else inputs

    def add_cotangents(self, features: Tensor, cotangents: Tensor, cases: int) -> None:
        """Add δ, of the shape of the layer's outputs."""
        products = [features * cotangents] if self._scale_first else []
        if len(self.parameters) > len(products):
            products.append(cotangents)
        for diagonal, product in zip(self._diagonals, products, strict=True):
            if isinstance(self.module, nn.LayerNorm):
                per_case = product.reshape(len(product), -1, *diagonal.shape).sum(dim=1)
            else:
                per_case = product.reshape(*product.shape[:2], -1).sum(dim=2)
            diagonal.add_(per_case.square().sum(dim=0), alpha=1 / cases)

    def invert(self, weight: Tensor, damping: Tensor) -> None:
        """Do nothing: a diagonal is inverted where it is used, at every step."""

    def precondition(self, gradients: Sequence[Tensor], weight: Tensor, damping: Tensor) -> list[Tensor]:
        """Return ∇ / (diagonal + λ)."""
        return [g / (diagonal / weight + damping) for g, diagonal in zip(gradients, self._diagonals, strict=True)]

    def state(self, with_inverse: bool) -> dict[str, Tensor]:
        """Return the averages."""
        return {f"diagonal_{index}": diagonal for index, diagonal in enumerate(self._diagonals)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up the averages."""
        for index, diagonal in enumerate(self._diagonals):
            diagonal.copy_(state[f"diagonal_{index}"])


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


def curvature_blocks(model: nn.Module) -> list[CurvatureBlock]:
    """Return a block for each layer of ``model`` that has trainable parameters.

    Raises:
        ValueError: A parameter is in another kind of layer, or shared by several; the message names it.
    """
    blocks: list[CurvatureBlock] = []
    owners: dict[nn.Parameter, str] = {}
    for layer, module in model.named_modules():
        own = [(name, p) for name, p in module.named_parameters(layer, recurse=False) if p.requires_grad]
        if not own:
            continue
        for name, parameter in own:
            if parameter in owners:
                raise ValueError(f"K-FAC cannot train {name}: it is the same parameter as {owners[parameter]}")
            if name.rpartition(".")[2] not in ("weight", "bias"):
                raise ValueError(f"K-FAC cannot train {name}: it is neither a weight nor a bias")
            owners[parameter] = name
        blocks.append(_block(module, own[0][0]))
    return blocks


def _block(module: nn.Module, name: str) -> CurvatureBlock:
    if isinstance(module, nn.Linear):
        return KroneckerBlock(module)
    if isinstance(module, nn.Conv2d):
        if module.groups != 1:
            raise ValueError(f"K-FAC cannot train {name}: its convolution has {module.groups} groups")
        return KroneckerBlock(module)
    if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)):
        return NormalizationBlock(module)
    raise ValueError(
        f"K-FAC cannot train {name}: it knows Linear, Conv2d and normalization layers, not {type(module).__name__}"
    )
