"""All trainable parameters of a network as one flat vector θ."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adamqlr.optim.options import members_of


class FlatParameters:
    """Lays a module's trainable parameters out in one buffer of n elements, each parameter a view of it.

    Dot products, moments and the step are then single kernels whatever the number of layers. Frozen parameters stay
    where they are; a tied parameter appears once. A module that holds several networks side by side says how many in
    an attribute ``members``, which is the first dimension of its parameters; then there is a vector for each.

    Attributes:
        names: Names of the trainable parameters.
        parameters: The parameters themselves, their data views of ``buffer``.
        members: () for one network, (members,) for several.
        buffer: θ, of shape (*members, n).

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
        self.members = members_of(module)
        self.shapes = [parameter.shape for parameter in self.parameters]
        self.sizes = [parameter.numel() // self.members.numel() for parameter in self.parameters]
        self.buffer = self.gather(self.parameters)
        self._bind()

    def _bind(self) -> None:
        for parameter, view in zip(self.parameters, self.views(self.buffer), strict=True):
            parameter.data = view
        self._addresses = [parameter.data_ptr() for parameter in self.parameters]

    def check_bound(self) -> None:
        """Take the parameters up again where something (``module.to``, say) has given them new storage.

        Raises:
            ValueError: They have moved to another dtype or device since the optimizer was made.
        """
        if [parameter.data_ptr() for parameter in self.parameters] == self._addresses:
            return
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if (parameter.dtype, parameter.device) != (self.buffer.dtype, self.buffer.device):
                raise ValueError(f"{name} moved to {parameter.dtype} on {parameter.device}: make the optimizer anew")
        self.gather(self.parameters, out=self.buffer)
        self._bind()

    def views(self, flat: Tensor) -> list[Tensor]:
        """Return views of ``flat``, of shape (*members, n), shaped as the parameters."""
        pieces = flat.split(self.sizes, dim=-1)
        return [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def gather(self, tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        """Copy tensors shaped as the parameters into one vector of shape (*members, n)."""
        return torch.cat([tensor.detach().reshape(*self.members, -1) for tensor in tensors], dim=-1, out=out)

    def zeros(self) -> Tensor:
        """Return a zero vector of shape (*members, n)."""
        return torch.zeros_like(self.buffer)

    def scalar(self, value: float | Sequence[float] | Tensor) -> Tensor:
        """Return a number for each network, of shape ``members``, in the parameters' dtype and on their device."""
        return torch.as_tensor(value, dtype=self.buffer.dtype, device=self.buffer.device).expand(self.members).clone()


class FlatGradient:
    """One buffer of the size of θ whose views are the parameters' ``grad``.

    Args:
        flat: The parameters.

    Attributes:
        buffer: g, of shape (*members, n).
        views: g as a tensor for each parameter.
    """

    def __init__(self, flat: FlatParameters) -> None:
        self._flat = flat
        self.buffer = flat.zeros()
        self.views = flat.views(self.buffer)

    def assign(self, gradients: Sequence[Tensor]) -> None:
        """Copy the gradients in, and leave them where PyTorch's users look for them."""
        self._flat.gather(gradients, out=self.buffer)
        self.publish()

    def publish(self) -> None:
        """Leave what the buffer holds where PyTorch's users look for gradients."""
        if self._flat.parameters[-1].grad is self.views[-1]:
            return
        for parameter, view in zip(self._flat.parameters, self.views, strict=True):
            parameter.grad = view
