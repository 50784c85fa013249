"""Options of optimizers: checks of what a user passes, and one value for each of several networks side by side."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import is_
from typing import Any

from torch import Tensor

# One value, or for networks side by side one for each.
MemberOption = float | tuple[float, ...]
# The same as users give it.
GivenOption = float | Sequence[float] | Tensor

# Of schedules, around learning rates of zero.
_ROUNDING = 1e-9

# What may differ between networks side by side, and its range; where that allows None, for all of them at once or, as
# ``lr_clipping``, also for one.
_MEMBER_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "lr": ("at least 0, or None", lambda value: value >= 0),
    "momentum": ("at least 0, or None", lambda value: value >= 0),
    "damping": ("at least 0", lambda value: value >= 0),
    "damping_decrease": ("in (0, 1]", lambda value: 0 < value <= 1),
    "damping_increase": ("at least 1", lambda value: value >= 1),
    "lr_clipping": ("positive or None", lambda value: value > 0),
    "lr_rescaling": ("positive", lambda value: value > 0),
}


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

    def __call__(self, value: MemberOption | Tensor) -> float | Tensor:
        """Return a number or a tensor as it is, and several as a tensor of shape (members,)."""
        if not isinstance(value, tuple):
            return value
        if value not in self._known:
            self._known[value] = self._like.new_tensor(value)
        return self._known[value]

    def column(self, value: MemberOption) -> float | Tensor:
        """Return a number as it is, and several in the shape (members, 1)."""
        operand = self(value)
        return operand.unsqueeze(-1) if isinstance(operand, Tensor) else operand


class SeenOptions:
    """Has the options in parameter groups checked where they are others than at the last look.

    Tensors are not looked at: they may be on a device, which would be waited for.

    Args:
        defaults: The options, with values that have been checked.
        check: Returns the options of a group in the form that steps take; raises a ValueError where they have none.
    """

    def __init__(self, defaults: Mapping[str, Any], check: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._defaults, self._check = dict(defaults), check
        self._names = [name for name in defaults if name != "lr"]
        self._seen: list[Any] = []

    def look(self, groups: Sequence[dict[str, Any]]) -> None:
        """Check what has changed in the groups, and put it into the form that steps take."""
        found = self._values_in(groups)
        if len(found) == len(self._seen) and all(map(is_, found, self._seen)):
            return
        for group in groups:
            given = {name: self._number(name, group.get(name, default)) for name, default in self._defaults.items()}
            group.update({name: value for name, value in self._check(given).items() if value is not given[name]})
        self._seen = self._values_in(groups)

    def _values_in(self, groups: Sequence[dict[str, Any]]) -> list[Any]:
        found: list[Any] = []
        for group in groups:
            lr = group.get("lr")
            # A schedule sets another at every step, of which all are right.
            found.append(True if isinstance(lr, float) and lr >= 0 else lr)
            found += map(group.get, self._names)
        return found

    def _number(self, name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._defaults[name]
        # What a schedule's rounding leaves below zero is nothing.
        return 0.0 if name == "lr" and isinstance(value, float) and -_ROUNDING < value < 0 else value


def check_common(names: Iterable[str], number: int, group: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Refuse a parameter group that differs from the first in options that are one for all.

    Args:
        names: The options.
        number: The group's.
        group: The group.
        first: The first group.

    Raises:
        ValueError: It differs.
    """
    for name in names:
        if name not in group or group[name] is first[name]:
            continue
        if isinstance(group[name], Tensor) or group[name] != first[name]:
            raise ValueError(
                f"{name} is one for all parameters: param_groups[{number}] has {group[name]!r}, "
                f"param_groups[0] has {first[name]!r}"
            )


class MadeWith:
    """An attribute that is what an optimizer was made with."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Take the attribute's name."""
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Return it."""
        if instance is None:
            return self
        try:
            return instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(f"{type(instance).__name__!r} object has no attribute {self._name!r}") from None

    def __set__(self, instance: Any, value: Any) -> None:
        """Refuse another."""
        raise AttributeError(f"an optimizer keeps the {self._name} that it was made with: make a new optimizer")


def differ(*values: Any) -> bool:
    """Tell whether networks side by side have options of their own."""
    return any(isinstance(value, tuple) for value in values)


def checked_heuristics(options: dict[str, Any], members: Sequence[int]) -> dict[str, Any]:
    """Return the options of the heuristics, those that may differ between networks side by side in one form.

    Raises:
        ValueError: One is out of its range.
    """
    if isinstance(options["lr_clipping"], Sequence):
        # The infinite limit is none.
        limits = [math.inf if limit is None else limit for limit in options["lr_clipping"]]
        options = {**options, "lr_clipping": limits}
    options = options | {name: member_option(name, options[name], members) for name in _MEMBER_RANGES}
    for name, (wanted, holds) in _MEMBER_RANGES.items():
        if options[name] is not None:
            require_each(holds, name, wanted, options[name])
    for name in ("min_damping", "weight_decay"):
        require(options[name] >= 0, name, "at least 0", options[name])
    resolution = options["resolution"]
    require(resolution is None or resolution >= 0, "resolution", "at least 0, or None", resolution)
    require(
        options["max_damping"] >= options["min_damping"], "max_damping", "at least min_damping", options["max_damping"]
    )
    require(options["curvature"] in ("fisher", "hessian"), "curvature", "'fisher' or 'hessian'", options["curvature"])
    adapts = options["adapt_damping"]
    require(isinstance(adapts, bool), "adapt_damping", "True or False", adapts)
    policy = options["on_nonfinite"]
    require(policy in ("propagate", "skip"), "on_nonfinite", "'propagate' or 'skip'", policy)
    return options
