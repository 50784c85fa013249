"""The parameters that are trained as one flat vector θ."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import NoReturn

import torch
from torch import Tensor, nn

from adamqlr.optim.torch_private import copy_all

Named = Sequence[tuple[str, nn.Parameter]]
_grad_of = attrgetter("grad")


def _place_of(tensor: Tensor) -> tuple[int, torch.Size, tuple[int, ...]]:
    """Return what tells a view of the buffer from another tensor, be it that this one begins where the view did."""
    return tensor.data_ptr(), tensor.shape, tensor.stride()


class FlatParameters:
    """Lays parameters out in one buffer of n elements, each parameter a view of it, its memory format kept.

    Dot products, moments and the step are then single kernels whatever the number of layers. Networks side by side
    (:class:`adamqlr.optim.passes.perceptron.PerceptronPack`) have a vector each.

    Args:
        named: The parameters and their names.
        members: () for one network, (members,) for several, the first dimension of each parameter.

    Attributes:
        names: The names.
        parameters: The parameters themselves, their data views of ``buffer``.
        members: As given.
        buffer: θ, of shape (…, n).

    Raises:
        ValueError: The parameters differ in dtype or device, or are of a kind that cannot be trained.
    """

    def __init__(self, named: Named, members: Sequence[int] = ()) -> None:
        self.names = [name for name, _ in named]
        self.parameters: list[nn.Parameter] = [parameter for _, parameter in named]
        self.members = torch.Size(members)
        _check_alike(named)
        self.shapes = [parameter.shape for parameter in self.parameters]
        self.sizes = [parameter.numel() // self.members.numel() for parameter in self.parameters]
        # None where the order in memory is that of the dimensions.
        self._strides = [
            None if self.members or p.is_contiguous() or not _is_dense(p) else p.stride() for p in self.parameters
        ]
        first = self.parameters[0]
        self.buffer = torch.empty(*self.members, sum(self.sizes), dtype=first.dtype, device=first.device)
        self.adopt()

    def holds(self, named: Named) -> bool:
        """Tell whether it is these parameters that lie in the buffer, under these names."""
        wanted = [(name, id(parameter)) for name, parameter in named]
        return wanted == list(zip(self.names, map(id, self.parameters), strict=True)) and self.is_bound()

    def adopt(self) -> None:
        """Copy the parameters' values into the buffer and make them views of it."""
        for parameter, view in zip(self.parameters, self.views(self.buffer), strict=True):
            view.copy_(parameter.detach())
            parameter.data = view
        self._places = list(map(_place_of, self.parameters))

    def is_bound(self) -> bool:
        """Tell whether the parameters still are views of the buffer, and none has been given other storage."""
        places = list(map(_place_of, self.parameters))
        if places != self._places:
            # Sharing memory with other processes moves the buffer, and the parameters with it.
            self._places = list(map(_place_of, self.views(self.buffer)))
        return places == self._places

    def views(self, flat: Tensor) -> list[Tensor]:
        """Return views of ``flat``, of shape (…, n), shaped as the parameters."""
        pieces = zip(flat.split(self.sizes, dim=-1), self.shapes, self._strides, strict=True)
        return [
            piece.view(shape) if strides is None else piece.as_strided(shape, strides, piece.storage_offset())
            for piece, shape, strides in pieces
        ]

    def gather(self, tensors: Sequence[Tensor], out: Tensor) -> Tensor:
        """Copy tensors shaped as the parameters into one vector of shape (…, n)."""
        copy_all(self.views(out), [tensor.detach() for tensor in tensors])
        return out

    def zeros(self) -> Tensor:
        """Return a zero vector of shape (…, n)."""
        return torch.zeros_like(self.buffer)

    def scalar(self, value: float | Sequence[float] | Tensor) -> Tensor:
        """Return a number for each network, of shape ``members``, in the parameters' dtype and on their device."""
        return torch.as_tensor(value, dtype=self.buffer.dtype, device=self.buffer.device).expand(self.members).clone()


class LastNumber:
    """An option as a tensor, made anew only where it has changed: no CUDA graph can copy numbers from the host.

    Args:
        flat: The parameters, whose dtype and device it gets.
    """

    def __init__(self, flat: FlatParameters) -> None:
        self._flat = flat
        self._value: float | Sequence[float] | None = None

    def __call__(self, value: float | Sequence[float]) -> Tensor:
        """Return the number, of shape ``members``."""
        if value != self._value:
            self._value, self._tensor = value, self._flat.scalar(value)
        return self._tensor


class FlatGradient:
    """One buffer of the size of θ, which the parameters show as their ``grad``.

    Args:
        flat: The parameters.

    Attributes:
        buffer: g, of shape (…, n).
        views: g as a tensor for each parameter.
        unused: The places of parameters that the minibatch did not use; their ``grad`` is None.
        is_known: Whether there has been a minibatch.
    """

    def __init__(self, flat: FlatParameters) -> None:
        self._flat = flat
        self.buffer = flat.zeros()
        self.views = flat.views(self.buffer)
        self.unused: list[int] = []
        self.is_known = False
        self._used: Tensor | None = None
        self._sizes: Tensor | None = None
        self._make_shown()

    def _make_shown(self) -> None:
        """Make views for others, who may give them other data."""
        views = self._flat.views(self.buffer)
        self._shown = [None if index in self.unused else view for index, view in enumerate(views)]
        self._places = [None if view is None else view.data_ptr() for view in self._shown]

    def _is_shown(self) -> bool:
        # Looking takes a fraction of the time that setting does.
        found = map(_grad_of, self._flat.parameters)
        return all(
            one is shown and (one is None or one.data_ptr() == place)
            for one, shown, place in zip(found, self._shown, self._places, strict=True)
        )

    def assign(self, gradients: Sequence[Tensor | None]) -> None:
        """Copy the gradients in, and leave them where PyTorch's users look for them."""
        found = [(view, one.detach()) for view, one in zip(self.views, gradients, strict=True) if one is not None]
        if len(found) < len(gradients):
            self.buffer.zero_()
        try:
            copy_all([view for view, _ in found], [gradient for _, gradient in found])
        except RuntimeError as error:
            self._explain(gradients, error)
        self.note_unused([index for index, gradient in enumerate(gradients) if gradient is None])
        self.publish()

    def _explain(self, gradients: Sequence[Tensor | None], error: RuntimeError) -> NoReturn:
        for name, gradient in zip(self._flat.names, gradients, strict=True):
            if gradient is not None and gradient.layout != torch.strided:
                raise ValueError(f"{name} has a sparse gradient: have it made with sparse=False") from error
        raise error

    def note_unused(self, places: list[int]) -> None:
        """Say which parameters the minibatch did not use."""
        self._used = None
        if places != self.unused:
            self.unused = places
            self._make_shown()

    def note_used_somewhere(self, processes: Tensor) -> None:
        """Say how many processes used each parameter, of shape (parameters,): nothing waits for these numbers."""
        self.note_unused([])
        if self._sizes is None:
            # Once, as copies from the host wait for the device.
            self._sizes = torch.tensor(self._flat.sizes, device=processes.device)
        self._used = processes.clamp(max=1).repeat_interleave(self._sizes, output_size=len(self.buffer))

    def leave_out_unused(self, vector: Tensor) -> None:
        """Set a vector of shape (…, n) to zero where it belongs to parameters that the minibatch did not use."""
        if self._used is not None:
            vector.mul_(self._used)
        if self.unused:
            views = self._flat.views(vector)
            for index in self.unused:
                views[index].zero_()

    @contextmanager
    def unused_stay(self, *vectors: Tensor) -> Iterator[None]:
        """Within it moves a step; then vectors of the shape of θ are as before where the minibatch used nothing."""
        views = [self._flat.views(vector) for vector in vectors if self.unused]
        kept = [(of_one[index], of_one[index].clone()) for of_one in views for index in self.unused]
        yield
        for view, before in kept:
            view.copy_(before)

    @property
    def may_leave_unused(self) -> bool:
        """Whether the minibatch has, or where there are several processes may have, left parameters unused."""
        return bool(self.unused) or self._used is not None

    def scale_unused(self, vector: Tensor, factor: Tensor) -> None:
        """Multiply a vector of shape (…, n) where it belongs to parameters of which it is known that none was used."""
        views = self._flat.views(vector) if self.unused else []
        for index in self.unused:
            views[index].mul_(factor)

    def scale_unused_anywhere(self, vector: Tensor, factor: Tensor) -> None:
        """Multiply it where it belongs to parameters that no process has used, which the host does not know."""
        if self._used is not None:
            vector.mul_(torch.where(self._used > 0, 1, factor))

    def publish(self) -> None:
        """Leave what the buffer holds where PyTorch's users look for gradients."""
        self.is_known = True
        if not self._is_shown():
            self._make_shown()
            for parameter, view in zip(self._flat.parameters, self._shown, strict=True):
                parameter.grad = view


def _check_alike(named: Named) -> None:
    first_name, first = named[0]
    for name, parameter in named:
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(f"{name} has no shape yet: call the model once before making the optimizer")
        if hasattr(parameter, "device_mesh") or hasattr(parameter, "_is_flat_param"):
            raise ValueError(f"{name} is sharded (FSDP or tensor parallel): use DistributedDataParallel instead")
        if parameter.layout != torch.strided:
            raise ValueError(f"{name} is sparse: parameters must be dense")
        if parameter.device.type == "cpu" and parameter.is_shared():
            raise ValueError(
                f"{name} is in memory shared with other processes, which would not see it move: call "
                "model.share_memory() after the optimizer is made, and copy.deepcopy(model) to train one's own"
            )
        if parameter.is_complex():
            raise ValueError(f"{name} is complex: train its real view (torch.view_as_real) instead")
        if parameter.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"{name} is {parameter.dtype}: parameters must be float32 or float64; for mixed precision keep them so "
                "and step within torch.autocast(…, dtype=torch.bfloat16)"
            )
        if (parameter.dtype, parameter.device) != (first.dtype, first.device):
            raise ValueError(
                f"parameters must share one dtype and device: {first_name} is {first.dtype} on {first.device}, "
                f"{name} is {parameter.dtype} on {parameter.device}"
            )


def _is_dense(tensor: Tensor) -> bool:
    """Tell whether a tensor's elements fill a stretch of memory, in whatever order of the dimensions."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1):
        if stride != expected:
            return False
        expected *= size
    return True
