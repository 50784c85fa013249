"""What proposes a direction: any object with the methods of :class:`Direction`, one of PyTorch's optimizers, a name."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from adamqlr.optim.flat import FlatGradient, FlatParameters
from adamqlr.optim.passes.losses import Loss
from adamqlr.optim.passes.network import Observer
from adamqlr.optim.state import State


@runtime_checkable
class Direction(Protocol):
    """Proposes at every step a direction d, along which the heuristics then choose how far to go: θ ← θ − α d.

    Its length does not matter: s · d gets the learning rate α / s. What keeps more than tensors of ``state`` may have
    the methods of :class:`~adamqlr.optim.directions.OptionalMethods` as well. A direction of one's own::

        class Signs:
            defaults = {"beta": 0.9}  # options, read at every step from param_groups

            def bind(self, flat, state):
                self.group, self.mean = state.group, state.vector("mean")

            def propose(self, gradient, damping, out):
                self.mean.lerp_(gradient.buffer, 1 - self.group["beta"])
                torch.sign(self.mean, out=out)

        optimizer = QLR(model, "cross_entropy", Signs())

    Attributes:
        defaults: Options, with their defaults; they stand in ``param_groups`` and are read from there.
    """

    defaults: Mapping[str, Any]

    def bind(self, flat: FlatParameters, state: State) -> None:
        """Get ready for the parameters θ, of shape (…, n).

        Called when the optimizer is made, and again whenever its state is loaded or the model has been given other
        storage. Every tensor that outlives a step comes from ``state``, which saves it, loads it and takes it back.
        """
        ...

    def propose(self, gradient: FlatGradient, damping: Tensor, out: Tensor) -> None:
        """Write d into ``out``, a vector of the shape of θ, once a step.

        Args:
            gradient: g, flat as ``gradient.buffer`` and for each parameter in ``gradient.views``; not to be changed.
            damping: λ, a 0-d tensor (of shape members for networks side by side).
            out: d; what it holds before is of no meaning.
        """
        ...


# The state that each direction was bound to last, by the direction's address.
_bound: WeakValueDictionary[int, State] = WeakValueDictionary()


def bind(direction: Direction, flat: FlatParameters, state: State) -> None:
    """Bind a direction to an optimizer's parameters and state, and to no other's any more."""
    with state.for_part(direction.defaults):
        direction.bind(flat, state)
    _bound[id(direction)] = state


def check_bound(direction: Direction, state: State) -> None:
    """See that a direction still is bound to an optimizer's state.

    Raises:
        ValueError: It has been given to another optimizer since, whose numbers it would use.
    """
    if _bound.get(id(direction)) is not state:
        name = type(direction).__name__
        raise ValueError(f"the direction {name} has been given to another optimizer since: make one for each")


class OptionalMethods:
    """What a direction may have besides, each on its own, and what holds where it has not.

    Args:
        direction: The direction.
    """

    def __init__(self, direction: Direction) -> None:
        self._direction = direction

    @property
    def capturable(self) -> bool:
        """Whether each proposal runs the same kernels, so that a step can be replayed; False by default.

        A direction that keeps a count in Python, say, would not have it counted by a replay.
        """
        return getattr(self._direction, "capturable", False)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options, its own among them, that are out of their range where they have changed; none by default.

        Raises:
            ValueError: One is.
        """
        getattr(self._direction, "check_options", lambda options: None)(options)

    def live_tensors(self) -> list[Tensor]:
        """Return tensors that are not from ``state`` and to be put back if the step is refused; none by default.

        Raises:
            ValueError: There is more than tensors.
        """
        return getattr(self._direction, "live_tensors", list)()

    def undo(self) -> Callable[[], Any] | None:
        """Return what takes back all else that the last proposal changed, if its step is refused.

        By default None, nothing: else whoever steps has to wait for the device to say whether to call it.

        Raises:
            ValueError: It cannot be taken back.
        """
        return getattr(self._direction, "undo", lambda: None)()

    def replace(self, replaced: Mapping[nn.Parameter, nn.Parameter]) -> None:
        """Let new parameters stand for old ones; nothing by default, as :meth:`adamqlr.Direction.bind` follows."""
        getattr(self._direction, "replace", lambda replaced: None)(replaced)

    def state_dict(self) -> dict[str, Any]:
        """Return what is saved besides ``state``; nothing by default."""
        return getattr(self._direction, "state_dict", dict)()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load it; called where :meth:`state_dict` returns something."""
        self._direction.load_state_dict(state_dict)  # type: ignore[attr-defined]


def resolve_direction(direction: "str | torch.optim.Optimizer | Direction", model: nn.Module, loss: Loss) -> Direction:
    """Return the direction that a name, an optimizer of PyTorch's or an object with the protocol stands for.

    Raises:
        ValueError: The name is unknown, or the optimizer's step is no direction.
        TypeError: It is none of these.
    """
    from adamqlr.optim.directions.adam import AdamDirection
    from adamqlr.optim.directions.gradient import GradientDirection
    from adamqlr.optim.directions.kronecker import KroneckerDirection
    from adamqlr.optim.directions.wrapped import WrappedDirection

    if direction == "gradient":
        return GradientDirection()
    if direction == "adam":
        return AdamDirection()
    if direction == "kronecker":
        return KroneckerDirection(model, loss)
    if isinstance(direction, str):
        raise ValueError(f"unknown direction {direction!r}: use 'gradient', 'adam', 'kronecker' or an optimizer")
    if isinstance(direction, torch.optim.Optimizer):
        return WrappedDirection(direction)
    if isinstance(direction, type):
        arguments = "model.parameters()" if issubclass(direction, torch.optim.Optimizer) else ""
        raise TypeError(f"direction must be made, not a class: {direction.__name__}({arguments})")
    if isinstance(direction, Direction):
        return direction
    raise TypeError(
        "direction must be a name, a torch.optim.Optimizer or have defaults, bind and propose, "
        f"got {type(direction).__name__}"
    )


def observer_of(direction: Direction) -> Observer | None:
    """Return the direction itself if it wants to see the layers, as K-FAC's does."""
    return direction if hasattr(direction, "observe") else None  # type: ignore[return-value]
