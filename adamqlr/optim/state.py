"""Tensors that outlive a step: where they live, are saved, taken up and taken back."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.flat import FlatParameters

CANNOT_JOIN = "cannot join after the first step: make the optimizer anew with params=…"


class State:
    """Makes tensors that show as PyTorch's usual per-parameter state, so that ``state_dict`` needs nothing special.

    A tensor starts from what stands under its name in the optimizer's ``state`` or ``param_groups``, be it loaded or
    left by an earlier layout of the parameters, and else from its initial value.

    Args:
        optimizer: Whose state it is.
        flat: The parameters as they lie now.
        loaded: The saved state that has been put there, in which everything must stand already; None if there is none.
        has_started: Whether steps have been taken.

    Attributes:
        group: The options of the whole optimizer: its first parameter group.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        flat: FlatParameters,
        loaded: Mapping[str, Any] | None = None,
        has_started: bool = False,
    ) -> None:
        self._optimizer, self._flat = optimizer, flat
        self._strict, self._has_started = loaded is not None, has_started
        # Only these say so; they have every vector that was wanted when they were saved.
        self._is_own = loaded is not None and "has_started" in loaded
        self._tensors: list[Tensor] = []
        self._counts: list[str] = []
        self._forgotten: list[str] = []
        self._shown: dict[nn.Parameter, tuple[str, dict[str, Tensor]]] = {}
        self._numbers: set[str] = set()
        self._followed: dict[str, Tensor] = {}
        self._taken: Collection[str] = ()
        self.group: dict[str, Any] = optimizer.param_groups[0]

    @contextmanager
    def for_part(self, options: Collection[str]) -> Iterator[None]:
        """Within it a part of the optimizer is bound that may call a number like its own options, and no others'."""
        self._taken = {"params", "initial_lr", *self._optimizer.defaults} - set(options)
        try:
            yield
        finally:
            self._taken = ()

    def vector(self, name: str, outlives_freezing: bool = True) -> Tensor:
        """Return a vector of the shape of θ: zeros at first, and else again where a parameter has been frozen."""
        if not outlives_freezing:
            self._forgotten.append(name)
        vector = self._flat.zeros()
        states = [self._optimizer.state[parameter] for parameter in self._flat.parameters]
        # What is wanted since the last step before a state was saved is not there, and begins with the next.
        may_begin = self._is_own and not outlives_freezing
        is_nowhere = not any(name in state for state in states)
        for parameter, label, view, state in zip(
            self._flat.parameters, self._flat.names, self._flat.views(vector), states, strict=True
        ):
            self._take_up(parameter, label, name, view, may_begin and (is_nowhere or "left_at" in state))
        self._tensors.append(vector)
        return vector

    def of_parameter(self, parameter: nn.Parameter, name: str, initial: Tensor) -> Tensor:
        """Return a tensor of any shape that belongs to one parameter.

        Raises:
            ValueError: Steps have been taken without it.
        """
        (index,) = (i for i, known in enumerate(self._flat.parameters) if known is parameter)
        if self._has_started and not self._strict and name not in self._optimizer.state[parameter]:
            raise ValueError(
                f"{self._flat.names[index]} has no {name!r} after the first step: freeze and free a layer as a whole"
            )
        self._take_up(parameter, self._flat.names[index], name, initial)
        self._tensors.append(initial)
        return initial

    def _take_up(
        self, parameter: nn.Parameter, label: str, name: str, tensor: Tensor, is_optional: bool = False
    ) -> None:
        saved = self._optimizer.state[parameter].get(name)
        if saved is None and self._strict and not is_optional:
            raise ValueError(
                f"the saved state has no {name!r} of {label}: it is of another optimizer, or of other options"
            )
        if saved is not None:
            if saved.shape != tensor.shape:
                shapes = f"{name!r} of {label} has the shape {tuple(saved.shape)}, not {tuple(tensor.shape)}"
                whole = f"{shapes} as its trained parameters have: freeze and free a layer as a whole"
                raise ValueError(f"the saved {shapes}" if self._strict else whole)
            tensor.copy_(saved)
        if name in self._shown.get(parameter, ("", {}))[1]:
            raise ValueError(f"two tensors of {label} are called {name!r}: give the direction's another name")
        self._optimizer.state[parameter][name] = tensor
        self._shown.setdefault(parameter, (label, {}))[1][name] = tensor

    def number(self, name: str, initial: float | Sequence[float] | Tensor) -> Tensor:
        """Return a number for each network, in the parameters' dtype; it shows in the first parameter group.

        Raises:
            ValueError: Another part of the optimizer has something of that name there.
        """
        self._check_name(name)
        return self._show(name, self._flat.scalar(self.group.get(name, initial)))

    def counter(self, name: str) -> Tensor:
        """Return a count, in single precision as PyTorch's optimizers have it; likewise."""
        self._check_name(name)
        count = torch.zeros((), dtype=torch.float32, device=self._flat.buffer.device)
        return self._show(name, count.fill_(self.group.get(name, 0.0)))

    def _check_name(self, name: str) -> None:
        if name in self._taken or name in self._numbers:
            raise ValueError(f"param_groups has {name!r} already: give the direction's number another name")

    def returned(self, name: str) -> dict[int, Tensor]:
        """Return where a count stood when parameters were frozen that are trained again, by their places in θ.

        Args:
            name: A number that all parameters have in common, and that each would count for itself.
        """
        self._counts.append(name)
        states = [self._optimizer.state.get(parameter, {}) for parameter in self._flat.parameters]
        return {index: state["left_at"][name] for index, state in enumerate(states) if "left_at" in state}

    def settle(self) -> None:
        """Forget when parameters were frozen that are trained again, now that all has been taken up.

        Parameters that are frozen where a state is loaded were so from there on, if that says nothing else. What is
        asked for later, such as an update where momentum is switched on, is new.
        """
        self._strict = False
        trained = set(map(id, self._flat.parameters))
        for parameter, state in self._optimizer.state.items():
            if id(parameter) in trained:
                state.pop("left_at", None)
            elif self._has_started and "left_at" not in state:
                self._leave(state)

    def follow_freezing(self, named: Mapping[str, nn.Parameter]) -> None:
        """Keep where counts stand for parameters that have been frozen, and let in those alone that come back.

        Args:
            named: Those that may be trained, as they are now.

        Raises:
            ValueError: One has been freed that was frozen before all steps.
        """
        before = set(self._flat.names)
        for name, parameter in named.items():
            was_trained, is_trained = name in before, parameter.requires_grad
            if was_trained and not is_trained:
                self._leave(self._optimizer.state[parameter])
            if is_trained and not was_trained and "left_at" not in self._optimizer.state.get(parameter, {}):
                raise ValueError(f"{name} was frozen at the first step, and {CANNOT_JOIN}")

    def _leave(self, state: dict[str, Any]) -> None:
        """Keep where counts stand for a parameter that is frozen, if all have begun; it is not updated any more."""
        for name in self._forgotten:
            if name in state:
                state[name].zero_()
        counts = {name: self.group[name].clone() for name in self._counts}
        # Freezing is no step, and may look at the numbers.
        if all(bool((count > 0).all()) for count in counts.values()):
            state["left_at"] = counts

    def _show(self, name: str, number: Tensor) -> Tensor:
        self._tensors.append(number)
        self._numbers.add(name)
        if self._taken or name not in self._optimizer.defaults:
            # The optimizer looks after its own options.
            self._followed[name] = number
        self.group[name] = number
        return number

    def _follow_numbers(self) -> None:
        """Take up what somebody has put in the place of numbers, such as a count of steps that begins anew."""
        for name, number in self._followed.items():
            found = self.group.get(name)
            if found is None:
                raise ValueError(f"{name!r} was removed from param_groups, which resets nothing: set it to a number")
            if found is not number:
                self.group[name] = number.copy_(torch.as_tensor(found, dtype=number.dtype))

    def is_shown(self) -> bool:
        """Tell whether the tensors in use are those in the optimizer's ``state``.

        Returns:
            False if some were replaced there.

        Raises:
            ValueError: Some of it was removed, of which the tensors in use know nothing.
        """
        self._follow_numbers()
        state, is_shown = self._optimizer.state, True
        for parameter, (label, tensors) in self._shown.items():
            found = state.get(parameter, {})
            for name, tensor in tensors.items():
                if found.get(name) is not tensor:
                    if name not in found:
                        raise ValueError(
                            f"{label}: the optimizer's state was emptied, which resets nothing: make the optimizer anew"
                        )
                    is_shown = False
        return is_shown

    @property
    def groups(self) -> list[dict[str, Any]]:
        """All parameter groups."""
        return self._optimizer.param_groups

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        return self._tensors


def in_todays_form(state_dict: dict[str, Any], flat: FlatParameters) -> dict[str, Any]:
    """Return a saved state with one tensor a parameter for vectors, and numbers in the parameter group.

    Version 0.1 saved some vectors whole, and PyTorch's optimizers save a count of steps for each parameter.

    Args:
        state_dict: The state.
        flat: The parameters that it is for.

    Raises:
        ValueError: These counts differ.
    """
    group, *others = state_dict["param_groups"]
    states = dict(state_dict["state"])
    if not others and len(group["params"]) == 1 < len(flat.parameters) and states:
        (whole,) = states.values()
        vectors = {name: flat.views(value) for name, value in whole.items() if value.shape == flat.buffer.shape}
        numbers = {name: value for name, value in whole.items() if name not in vectors}
        separate = range(len(flat.parameters))
        states = {index: {**numbers, **{name: v[index] for name, v in vectors.items()}} for index in separate}
        group = {**group, "params": list(separate)}
    steps = {float(state["step"]) for state in states.values() if "step" in state}
    if len(steps) > 1:
        raise ValueError(f"the saved parameters have taken different numbers of steps: {sorted(steps)}")
    if steps:
        group = {**group, "step": steps.pop()}
    return {"state": states, "param_groups": [group, *others]}
