"""Any of PyTorch's optimizers as a direction: what its step would do."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.flat import FlatGradient, FlatParameters
from adamqlr.optim.state import State
from adamqlr.optim.torch_private import unnoticed


def refuse_special_steps(optimizer: torch.optim.Optimizer, use: str) -> None:
    """Check that an optimizer's step needs nothing but gradients.

    Args:
        optimizer: The optimizer.
        use: What it is to do, for the error.

    Raises:
        ValueError: Its step evaluates a closure, or needs sparse gradients.
    """
    name, closure = type(optimizer).__name__, inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(f"{name} cannot {use}: its step evaluates a closure several times")
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise ValueError(f"{name} cannot {use}: it needs sparse gradients")


class WrappedDirection:
    """d = θ − θ′, with θ′ where an optimizer's step leads; the parameters stay where they are.

    Its learning rate cancels in α d, and so does any schedule of it: put schedules on the optimizer around it. It
    should only be such that θ′ differs from θ by more than rounding, as PyTorch's defaults do.

    Args:
        optimizer: An optimizer over the model's parameters.

    Raises:
        ValueError: Its step is no direction: it evaluates a closure, averages parameters, needs sparse gradients, or
            maximizes.
    """

    defaults: Mapping[str, Any] = {}
    capturable = False

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        refuse_special_steps(optimizer, "be a direction")
        name = type(optimizer).__name__
        if isinstance(optimizer, torch.optim.ASGD):
            raise ValueError(f"{name} cannot be a direction: it averages parameters")
        if hasattr(optimizer, "train") and hasattr(optimizer, "eval"):
            raise ValueError(f"{name} cannot be a direction: it keeps averaged parameters beside those it moves")
        if "inputs" in inspect.signature(type(optimizer).step).parameters:
            raise ValueError(f"{name} cannot be a direction: its step wants the minibatch; use its name instead")
        if any(group.get("maximize") for group in optimizer.param_groups):
            raise ValueError(f"{name} cannot be a direction with maximize=True: give the negative of the loss")
        self.optimizer = optimizer

    def bind(self, flat: FlatParameters, state: State) -> None:
        """Check that the optimizer moves what is trained.

        Raises:
            ValueError: It moves other parameters, or fewer.
        """
        name = type(self.optimizer).__name__
        if flat.members:
            raise ValueError(f"{name} cannot be a direction of networks side by side")
        moved = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        for label, parameter in zip(flat.names, flat.parameters, strict=True):
            if id(parameter) not in moved:
                raise ValueError(
                    f"{name} does not move {label}: give it all trained parameters, or QLR only its own with params=…"
                )
        foreign = moved - {id(p) for group in state.groups for p in group["params"]}
        if any(p.requires_grad for g in self.optimizer.param_groups for p in g["params"] if id(p) in foreign):
            raise ValueError(f"{name} moves parameters that are not trained here: give it the model's own")
        self._flat = flat
        self._before = flat.zeros()

    def __getstate__(self) -> dict[str, Any]:
        """Return what copying keeps."""
        return {"optimizer": self.optimizer}

    def propose(self, gradient: FlatGradient, damping: Tensor, out: Tensor) -> None:
        """Let the optimizer step, write where it came from less where it went, and go back."""
        theta = self._flat.buffer
        self._before.copy_(theta)
        self._numbers_before = self._numbers()
        self._states_before = {parameter: dict(state) for parameter, state in self.optimizer.state.items()}
        kept = gradient.buffer.clone()
        gradient.publish()
        # The tangent pass still needs the parameters as they are.
        with unnoticed(self._flat.parameters):
            self.optimizer.step()
            if not self._flat.is_bound():
                self._flat.adopt()
            torch.sub(self._before, theta, out=out)
            theta.copy_(self._before)
        # Some optimizers add their weight decay to the gradient in place.
        gradient.buffer.copy_(kept)

    def _numbers(self) -> list[dict[str, Any]]:
        groups = self.optimizer.param_groups
        return [{name: value for name, value in g.items() if isinstance(value, (int, float))} for g in groups]

    def undo(self) -> Callable[[], None] | None:
        """Return what takes back state that the last step made or replaced, if there is any.

        Raises:
            ValueError: It changed numbers of Python's, which cannot be taken back without waiting for the device.
        """
        if self._numbers() != self._numbers_before:
            raise ValueError(
                f"on_nonfinite='skip' cannot take back what {type(self.optimizer).__name__} counts in its "
                "param_groups: use on_nonfinite='propagate'"
            )
        if self._has_the_same_state():
            return None
        self.live_tensors()
        return self._put_back_states

    def _has_the_same_state(self) -> bool:
        states, before = self.optimizer.state, self._states_before
        return states.keys() == before.keys() and all(
            state.keys() == before[parameter].keys()
            and all(value is before[parameter][name] for name, value in state.items() if isinstance(value, Tensor))
            for parameter, state in states.items()
        )

    def _put_back_states(self) -> None:
        self.optimizer.state.clear()
        self.optimizer.state.update(self._states_before)

    def live_tensors(self) -> list[Tensor]:
        """Return the tensors of the optimizer's own state.

        Raises:
            ValueError: Some of it is numbers of Python's, which cannot be taken back without waiting for the device, or
                lists.
        """
        found = []
        for parameter_state in self.optimizer.state.values():
            for name, value in parameter_state.items():
                if isinstance(value, Tensor):
                    found.append(value)
                elif isinstance(value, (int, float, list, tuple, dict)) and not isinstance(value, bool):
                    raise ValueError(
                        f"on_nonfinite='skip' cannot take back {name!r} of {type(self.optimizer).__name__}, "
                        "which is no tensor: use on_nonfinite='propagate'"
                    )
        return found

    def replace(self, replaced: Mapping[nn.Parameter, nn.Parameter]) -> None:
        """Let new parameters stand for old ones."""
        for group in self.optimizer.param_groups:
            group["params"] = [replaced.get(parameter, parameter) for parameter in group["params"]]
        for old, new in replaced.items():
            if old in self.optimizer.state:
                self.optimizer.state[new] = self.optimizer.state.pop(old)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load it; numbers keep the precision that they had, where PyTorch would give them the parameters'."""
        self.optimizer.load_state_dict(state_dict)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for index, saved in state_dict["state"].items():
            own = self.optimizer.state[parameters[index]]
            for name, value in saved.items():
                if isinstance(value, Tensor) and value.dim() == 0 and own[name].dtype != value.dtype:
                    own[name] = own[name].to(value.dtype)
