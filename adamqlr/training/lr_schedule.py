"""Learning-rate schedules: a scheduler of PyTorch's kind moves an optimizer's learning rate once a step or an epoch."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from adamqlr.errors import UserError
from adamqlr.study.optimizers import OptimizerSpec
from adamqlr.training.own_optimizers import OrdinaryOptimizer, load_class

Step = Callable[..., Any]


class LrSchedule:
    """A scheduler, and when it moves the learning rate.

    Args:
        scheduler: One of PyTorch's kind, over the optimizer.
        period: Optimizer steps between its steps.
    """

    def __init__(self, scheduler: Any, period: int) -> None:
        self._scheduler, self._period, self._steps = scheduler, period, 0

    def following(self, step: Step) -> Step:
        """Return ``step``, after which the learning rate is that of the next."""

        def take(*selection: Any) -> Any:
            info = step(*selection)
            self._steps += 1
            if self._steps % self._period == 0:
                self._scheduler.step()
            return info

        return take

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule is; the learning rate itself is among the optimizer's state."""
        return {"steps": self._steps, "scheduler": self._scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another schedule was."""
        self._steps = state["steps"]
        self._scheduler.load_state_dict(state["scheduler"])


def make_lr_schedule(spec: OptimizerSpec, optimizer: Any, steps_per_epoch: int) -> LrSchedule | None:
    """Return the schedule of an optimizer that has not stepped yet; None if it has none.

    Args:
        spec: What the optimizer is.
        optimizer: The optimizer.
        steps_per_epoch: Its steps an epoch.

    Raises:
        UserError: The scheduler cannot be made, its step needs a loss, or there is no learning rate for it to move.
    """
    key, settings = spec.key, spec.schedule
    if settings is None:
        return None
    moved = optimizer.optimizer if isinstance(optimizer, OrdinaryOptimizer) else optimizer
    name = type(moved).__name__
    if not isinstance(moved, torch.optim.Optimizer):
        raise UserError(f"optimizer '{key}': {name} cannot have a schedule: it is no torch.optim.Optimizer")
    if not all(isinstance(group.get("lr"), (int, float)) for group in moved.param_groups):
        raise UserError(f"optimizer '{key}': {name} cannot have a schedule: it has no lr, or moves it by itself")
    try:
        scheduler = load_class(settings.scheduler)(moved, **settings.options)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise UserError(f"optimizer '{key}': schedule {settings.scheduler}: {error}") from error
    needed = [p for p in inspect.signature(scheduler.step).parameters.values() if p.default is inspect.Parameter.empty]
    if needed:
        raise UserError(
            f"optimizer '{key}': schedule {settings.scheduler}: its step needs {needed[0].name}: choose one that counts"
        )
    return LrSchedule(scheduler, steps_per_epoch if settings.per == "epoch" else 1)
