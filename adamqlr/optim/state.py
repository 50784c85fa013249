"""Tensors that outlive a step: where they live, are saved, taken up and taken back."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.flat import FlatParameters


class State:
    """Makes tensors that show as PyTorch's usual per-parameter state, so that ``state_dict`` needs nothing special.

    A tensor starts from what stands under its name in the optimizer's ``state`` or ``param_groups``, be it loaded or
    left by an earlier layout of the parameters, and else from its initial value.

    Args:
        optimizer: Whose state it is.
        flat: The parameters as they lie now.
        strict: Whether everything must stand there already, as in a state that was saved.

    Attributes:
        group: The options of the whole optimizer: its first parameter group.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, flat: FlatParameters, strict: bool = False) -> None:
        self._optimizer, self._flat, self._strict = optimizer, flat, strict
        self._tensors: list[Tensor] = []
        self.group: dict[str, Any] = optimizer.param_groups[0]

    def vector(self, name: str) -> Tensor:
        """Return a vector of the shape of θ: zeros at first."""
        vector = self._flat.zeros()
        for parameter, label, view in zip(
            self._flat.parameters, self._flat.names, self._flat.views(vector), strict=True
        ):
            self._take_up(parameter, label, name, view)
        self._tensors.append(vector)
        return vector

    def of_parameter(self, parameter: nn.Parameter, name: str, initial: Tensor) -> Tensor:
        """Return a tensor of any shape that belongs to one parameter."""
        (index,) = (i for i, known in enumerate(self._flat.parameters) if known is parameter)
        self._take_up(parameter, self._flat.names[index], name, initial)
        self._tensors.append(initial)
        return initial

    def _take_up(self, parameter: nn.Parameter, label: str, name: str, tensor: Tensor) -> None:
        saved = self._optimizer.state[parameter].get(name)
        if saved is None and self._strict:
            raise ValueError(
                f"the saved state has no {name!r} of {label}: it is of another optimizer, or of other options"
            )
        if saved is not None:
            if saved.shape != tensor.shape:
                raise ValueError(
                    f"the saved {name!r} of {label} has the shape {tuple(saved.shape)}, not {tuple(tensor.shape)}"
                )
            tensor.copy_(saved)
        self._optimizer.state[parameter][name] = tensor

    def number(self, name: str, initial: float | Sequence[float] | Tensor) -> Tensor:
        """Return a number for each network, in the parameters' dtype; it shows in the first parameter group."""
        return self._show(name, self._flat.scalar(self.group.get(name, initial)))

    def counter(self, name: str) -> Tensor:
        """Return a count, in single precision as PyTorch's optimizers have it; likewise."""
        count = torch.zeros((), dtype=torch.float32, device=self._flat.buffer.device)
        return self._show(name, count.fill_(self.group.get(name, 0.0)))

    def _show(self, name: str, number: Tensor) -> Tensor:
        self._tensors.append(number)
        self.group[name] = number
        return number

    @property
    def groups(self) -> list[dict[str, Any]]:
        """All parameter groups."""
        return self._optimizer.param_groups

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        return self._tensors
