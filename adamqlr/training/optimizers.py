"""The study's optimizers, made for a network."""

import inspect
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pkgutil import resolve_name
from typing import Any, Protocol

from torch import Tensor, nn

from adamqlr.errors import UserError
from adamqlr.optim.passes.losses import Loss
from adamqlr.study.case import Case, missing_values
from adamqlr.study.optimizers import OptimizerSpec
from adamqlr.training.own_optimizers import load_class, own_keywords


class StudyOptimizer(Protocol):
    """What the study asks of an optimizer, beyond being a :class:`torch.optim.Optimizer`."""

    def step(self, inputs: Tensor, targets: Tensor) -> Any:
        """Take one step on a minibatch; return a tuple with at least ``loss`` and ``lr``, 0-d tensors."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` takes up again."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, to the same numbers."""
        ...


def make_optimizer(
    spec: OptimizerSpec, model: nn.Module, loss: str | Loss, options: Mapping[str, Any]
) -> StudyOptimizer:
    """Return a new optimizer with ``options`` on top of its fixed ones.

    Raises:
        UserError: An option is out of its range, or the optimizer cannot train the model.
    """
    wrapped = () if spec.wraps is None else (spec.wraps,)
    try:
        made: StudyOptimizer = resolve_name(spec.factory)(model, loss, *wrapped, **{**spec.options, **options})
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer '{spec.key}': {error}") from error
    return made


def check_hyperparameters(case: Case, hyperparameters: Mapping[str, Any]) -> None:
    """Check the names of hyperparameters against the keyword arguments of the optimizer, but for the data's.

    Raises:
        UserError: One is unknown, or one without a default is missing.
    """
    spec = case.spec
    known, required = _keywords(spec)
    for name in hyperparameters:
        is_known = any(fnmatchcase(name, pattern) for pattern in known)
        if name not in case.settings.data_hyperparameters and not is_known:
            raise UserError(f"optimizer '{spec.key}': unknown hyperparameter '{name}': known are {', '.join(known)}")
    missing = [name for name in required if name not in hyperparameters]
    if missing:
        raise UserError(missing_values(spec.key, missing))


def stack_options(spec: OptimizerSpec, options: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return options for networks side by side from those of each: equal ones stay as they are, others become tuples.

    Args:
        spec: The optimizer.
        options: One mapping a network, all of the same names.

    Raises:
        UserError: One that differs must be the same for all.
    """
    stacked: dict[str, Any] = {}
    for name in options[0]:
        values = tuple(one[name] for one in options)
        if all(value == values[0] for value in values):
            stacked[name] = values[0]
        elif name in spec.member_options:
            stacked[name] = values
        else:
            raise UserError(f"optimizer '{spec.key}': networks side by side share their {name}, got {values!r}")
    return stacked


def _keywords(spec: OptimizerSpec) -> tuple[list[str], list[str]]:
    """Return patterns of the names of an optimizer's keyword arguments, and the names of those without a default."""
    if spec.wraps is not None:
        try:
            return own_keywords(spec)
        except (TypeError, ValueError) as error:
            raise UserError(f"optimizer '{spec.key}': {error}") from error
    parameters = inspect.signature(load_class(spec.factory)).parameters.values()
    keywords = [parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    required = [parameter.name for parameter in keywords if parameter.default is inspect.Parameter.empty]
    return [parameter.name for parameter in keywords], required
