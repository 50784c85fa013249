"""Forward passes whose backward pass can be differentiated in its cotangent, and cheaply.

Jacobian–vector products are taken as the derivative of g = Jᵀu in u (see
:mod:`adamqlr.optim.passes.differentiated`). PyTorch's own second derivatives of convolution and batch normalization
also compute what that derivative does not need, or are composed of many elementwise kernels; here each is the
operation's plain tangent. Fused attention has no second derivatives, so attention is computed by plain operations.
Everything else keeps PyTorch's rules.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from adamqlr.optim.torch_private import transforms_are_active

_aten = torch.ops.aten


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...], mode: "_CheapTangents"
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.mode = geometry, mode
        output: Tensor = _aten.convolution(x, weight, bias, *geometry)
        return output

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        mask = tuple(ctx.needs_input_grad[:3])
        if ctx.mode.is_open:
            gradients = _aten.convolution_backward(cotangent, x, weight, [weight.shape[0]], *ctx.geometry, list(mask))
        else:
            gradients = _ConvolutionBackward.apply(cotangent, x.detach(), weight.detach(), ctx.geometry, mask)
        return (*gradients, None, None)


class _ConvolutionBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cotangent: Tensor,
        x: Tensor,
        weight: Tensor,
        geometry: tuple[Any, ...],
        mask: Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.output_shape = geometry, cotangent.shape
        ctx.set_materialize_grads(False)
        sizes = [weight.shape[0]]
        gradients: tuple[Tensor | None, ...] = _aten.convolution_backward(
            cotangent, x, weight, sizes, *geometry, list(mask)
        )
        return gradients

    @staticmethod
    def backward(
        ctx: Any, dx: Tensor | None, dweight: Tensor | None, dbias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        tangent = None
        if dweight is not None:
            tangent = _aten.convolution(x, dweight, dbias, *ctx.geometry)
        elif dbias is not None:
            tangent = _broadcast(dbias, x.dim()).expand(ctx.output_shape)
        if dx is not None:
            through = _aten.convolution(dx, weight, None, *ctx.geometry)
            tangent = through if tangent is None else through + tangent
        return tangent, None, None, None, None


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
        mode: "_CheapTangents",
    ) -> Tensor:
        output: Tensor
        output, mean, inverse_deviation = _aten.native_batch_norm(
            x, weight, bias, running_mean, running_var, training, momentum, eps
        )
        if not training:
            assert running_mean is not None
            assert running_var is not None
            mean, inverse_deviation = running_mean.clone(), (running_var + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, inverse_deviation)
        ctx.training, ctx.eps, ctx.mode = training, eps, mode
        return output

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_deviation = ctx.saved_tensors
        found, mask = (mean, inverse_deviation, ctx.training, ctx.eps), ctx.needs_input_grad[:3]
        if ctx.mode.is_open:
            gradients = _batch_norm_backward(cotangent, x, weight, *found, mask)
        else:
            weight = None if weight is None else weight.detach()
            gradients = _BatchNormBackward.apply(cotangent, x.detach(), weight, *found, mask)
        return (*gradients, *[None] * 6)


class _BatchNormBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cotangent: Tensor,
        x: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse_deviation: Tensor,
        training: bool,
        eps: float,
        mask: Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(x, weight, mean, inverse_deviation)
        ctx.training, ctx.eps = training, eps
        ctx.set_materialize_grads(False)
        return _batch_norm_backward(cotangent, x, weight, mean, inverse_deviation, training, eps, mask)

    @staticmethod
    def backward(
        ctx: Any, dx: Tensor | None, dweight: Tensor | None, dbias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_deviation = ctx.saved_tensors
        tangent = None
        if dweight is not None:
            scale = dweight * inverse_deviation
            shift = -mean * scale if dbias is None else dbias - mean * scale
            tangent = torch.addcmul(_broadcast(shift, x.dim()), x, _broadcast(scale, x.dim()))
        elif dbias is not None:
            tangent = _broadcast(dbias, x.dim()).expand_as(x)
        if dx is not None:
            # The Jacobian of normalization in its input is symmetric: its tangent is its own backward pass.
            through, _, _ = _batch_norm_backward(
                dx, x, weight, mean, inverse_deviation, ctx.training, ctx.eps, (True, False, False)
            )
            tangent = through if tangent is None or through is None else through + tangent
        return tangent, *[None] * 7


def _batch_norm_backward(
    cotangent: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    inverse_deviation: Tensor,
    training: bool,
    eps: float,
    mask: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    variance = inverse_deviation.pow(-2) - eps
    gradients: tuple[Tensor | None, ...] = _aten.native_batch_norm_backward(
        cotangent, x, weight, mean, variance, mean, inverse_deviation, training, eps, list(mask)
    )
    return gradients


def _broadcast(channels: Tensor, dimensions: int) -> Tensor:
    return channels.view(1, -1, *[1] * (dimensions - 2))


def _convolution_2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    mode: "_CheapTangents",
) -> Tensor:
    # PyTorch's own derivative is right for complex numbers, and has kernels for them.
    if isinstance(padding, str) or input.dim() != 4 or input.is_complex():
        return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)
    pairs = [[value, value] if isinstance(value, int) else list(value) for value in (stride, padding, dilation)]
    output: Tensor = _Convolution.apply(input, weight, bias, (*pairs, False, [0, 0], groups), mode)
    return output


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    mode: "_CheapTangents",
) -> Tensor:
    if training and input.numel() == input.shape[1]:
        raise ValueError(f"batch normalization needs more than one value per channel, got {tuple(input.shape)}")
    output: Tensor = _BatchNorm.apply(input, weight, bias, running_mean, running_var, training, momentum, eps, mode)
    return output


_REPLACED: dict[Callable[..., Any], Callable[..., Tensor]] = {
    torch.conv2d: _convolution_2d,
    functional.conv2d: _convolution_2d,
    functional.batch_norm: _batch_norm,
}


class _CheapTangents(TorchFunctionMode):
    """Replaces operations, and knows whether the forward pass still runs.

    Backward passes within it, of an energy in its inputs say, are themselves to be differentiated in the parameters.
    """

    is_open = False

    def __enter__(self) -> "_CheapTangents":
        self.is_open = True
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.is_open = False
        super().__exit__(*error)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # Autocast looks into PyTorch's own operations only.
        kwargs = kwargs or {}
        if func in _REPLACED:
            device = (args[0] if args else kwargs["input"]).device.type
            if not torch.is_autocast_enabled(device) and not transforms_are_active():
                return _REPLACED[func](*args, **kwargs, mode=self)
        return func(*args, **kwargs)


def cheap_tangents(model: nn.Module) -> AbstractContextManager[Any]:
    """Return a context for the forward pass of ``model`` after which derivatives of its backward pass are cheap.

    Of backward passes after it, only derivatives in the cotangent are right, those in the parameters are not.
    """
    replaced = (nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    # The mode costs microseconds a call, which networks of linear layers need not pay.
    return _CheapTangents() if any(isinstance(module, replaced) for module in model.modules()) else nullcontext()


def plain_attention(model: nn.Module) -> AbstractContextManager[Any]:
    """Return a context for the forward pass of ``model`` in which PyTorch's attention can be differentiated twice.

    Its outputs are the same with gradients and without.
    """
    # Entering it costs more than a small layer, and PyTorch's own layers but one have no attention.
    may_attend = any(
        isinstance(module, nn.MultiheadAttention) or not type(module).__module__.startswith("torch.nn.modules.")
        for module in model.modules()
    )
    return _attention_by_plain_operations() if may_attend else nullcontext()


@contextmanager
def _attention_by_plain_operations() -> Iterator[None]:
    # Without gradients, encoders in eval mode would take another path, which puts zeros where a mask says padding.
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)
