"""All trainable parameters of a network as one flat vector θ."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FlatParameters:
    """Lays a module's trainable parameters out in one buffer of n elements, each parameter a view of it.

    Dot products, moments and the step are then single kernels whatever the number of layers. Frozen parameters stay
    where they are; a tied parameter appears once.

    Attributes:
        names: Names of the trainable parameters.
        parameters: The parameters themselves, their data views of ``buffer``.
        buffer: θ, of shape (n,).

    Raises:
        ValueError: Nothing is trainable, or the parameters differ in dtype or device.
    """

    def __init__(self, module: nn.Module) -> None:
        trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        if not trainable:
            raise ValueError("the model has no trainable parameters")
        self.names = [name for name, _ in trainable]
        self.parameters: list[nn.Parameter] = [parameter for _, parameter in trainable]
        first_name, first = trainable[0]
        for name, parameter in trainable:
            if (parameter.dtype, parameter.device) != (first.dtype, first.device):
                raise ValueError(
                    f"parameters must share one dtype and device: {first_name} is {first.dtype} on {first.device}, "
                    f"{name} is {parameter.dtype} on {parameter.device}"
                )
        self.shapes = [parameter.shape for parameter in self.parameters]
        self.sizes = [parameter.numel() for parameter in self.parameters]
        self.buffer = self.gather(self.parameters)
        self._bind()

    def _bind(self) -> None:
        for parameter, view in zip(self.parameters, self.views(self.buffer), strict=True):
            parameter.data = view

    def check_bound(self) -> None:
        """Take the parameters up again where something (``module.to``, say) has given them new storage.

        Raises:
            ValueError: They have moved to another dtype or device since the optimizer was made.
        """
        start, offset = self.buffer.data_ptr(), 0
        bound = True
        for parameter, size in zip(self.parameters, self.sizes, strict=True):
            bound = bound and parameter.data_ptr() == start + offset
            offset += size * self.buffer.element_size()
        if bound:
            return
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if (parameter.dtype, parameter.device) != (self.buffer.dtype, self.buffer.device):
                raise ValueError(f"{name} moved to {parameter.dtype} on {parameter.device}: make the optimizer anew")
        self.gather(self.parameters, out=self.buffer)
        self._bind()

    def views(self, flat: Tensor) -> list[Tensor]:
        """Return views of ``flat``, of shape (n,), shaped as the parameters."""
        pieces = flat.split(self.sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def gather(self, tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        """Copy tensors shaped as the parameters into one vector of shape (n,)."""
        return torch.cat([tensor.detach().reshape(-1) for tensor in tensors], out=out)

    def zeros(self) -> Tensor:
        """Return a zero vector of shape (n,)."""
        return torch.zeros_like(self.buffer)


class FlatGradient:
    """One buffer of n elements whose views are the parameters' ``grad``.

    Args:
        flat: The parameters.

    Attributes:
        buffer: g, of shape (n,).
        views: g as a tensor for each parameter.
    """

    def __init__(self, flat: FlatParameters) -> None:
        self._flat = flat
        self.buffer = flat.zeros()
        self.views = flat.views(self.buffer)

    def assign(self, gradients: Sequence[Tensor]) -> None:
        """Copy the gradients in, and leave them where PyTorch's users look for them."""
        self._flat.gather(gradients, out=self.buffer)
        for parameter, view in zip(self._flat.parameters, self.views, strict=True):
            parameter.grad = view
