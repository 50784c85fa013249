"""Options of optimizers: checks of what a user passes, and one value for each of several networks side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# One value, or for networks side by side one for each.
MemberOption = float | tuple[float, ...]


def require(condition: bool, name: str, wanted: str, value: Any) -> None:
    """Raise a ValueError that names the option, unless the condition holds."""
    if not condition:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")


def require_each(holds: Callable[[float], bool], name: str, wanted: str, value: MemberOption) -> None:
    """Raise a ValueError that names the option, and the network of several, for which the condition does not hold."""
    if not isinstance(value, tuple):
        require(holds(value), name, wanted, value)
        return
    for member, one in enumerate(value):
        require(holds(one), f"{name} of network {member}", wanted, one)


def member_option(name: str, value: float | Sequence[float] | Tensor, members: Sequence[int]) -> MemberOption:
    """Return an option as a number, or as a tuple of one number for each network.

    Args:
        name: What the option is called.
        value: A number, or numbers of shape (members,).
        members: () for one network, (members,) for several side by side.

    Raises:
        ValueError: There is not one number for each network.
    """
    if isinstance(value, Tensor):
        value = value.tolist()
    if not isinstance(value, Sequence):
        return value
    wanted = f"one number, or {members[0]} for as many networks" if members else "one number"
    require((len(value),) == tuple(members), name, wanted, value)
    return tuple(value)


def nonnegative(members: Sequence[int], **values: float | Sequence[float] | Tensor) -> dict[str, MemberOption]:
    """Return options as :func:`member_option` does, by their names.

    Raises:
        ValueError: There is not one number for each network, or one is negative.
    """
    options = {name: member_option(name, value, members) for name, value in values.items()}
    for name, option in options.items():
        require_each(lambda number: number >= 0, name, "at least 0", option)
    return options


class MemberTensors:
    """Turns options into operands. Each tensor is made once, as no CUDA graph can copy numbers from the host.

    Args:
        like: A tensor of the networks' dtype and on their device.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._known: dict[tuple[float, ...], Tensor] = {}

    def __call__(self, value: MemberOption) -> float | Tensor:
        """Return a number as it is, and several as a tensor of shape (members,)."""
        if not isinstance(value, tuple):
            return value
        if value not in self._known:
            self._known[value] = self._like.new_tensor(value)
        return self._known[value]

    def column(self, value: MemberOption) -> float | Tensor:
        """Return a number as it is, and several in the shape (members, 1)."""
        operand = self(value)
        return operand.unsqueeze(-1) if isinstance(operand, Tensor) else operand


def differ(*values: Any) -> bool:
    """Tell whether networks side by side have options of their own."""
    return any(isinstance(value, tuple) for value in values)


def members_of(module: torch.nn.Module) -> torch.Size:
    """Return () for one network, and (members,) for a module that holds several side by side."""
    members = getattr(module, "members", None)
    return torch.Size([] if members is None else [int(members)])
