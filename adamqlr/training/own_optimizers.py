"""Optimizers of one's own, named in the configuration: as they are, or as a direction under the heuristics."""

import inspect
import sys
import traceback
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.errors import UserError
from adamqlr.optim.directions.wrapped import refuse_special_steps
from adamqlr.optim.info import GradientInfo
from adamqlr.optim.passes.given_loss import resolve_loss
from adamqlr.optim.passes.losses import Loss
from adamqlr.optim.qlr import QLR
from adamqlr.study.optimizer_settings import DIRECTION, DIRECTIONS
from adamqlr.study.optimizers import OptimizerSpec

_NOT_OPTIONS = {"self", "params", "model", "loss", "direction"}


class OrdinaryOptimizer:
    """An optimizer of PyTorch's kind, with the study's step: forward and backward pass, then its own.

    Args:
        model: The module to train.
        loss: As for :class:`adamqlr.QLR`.
        optimizer: One over the model's parameters.

    Attributes:
        optimizer: As given.

    Raises:
        ValueError: Its step asks for what is not here: a closure, or sparse gradients.
    """

    def __init__(self, model: nn.Module, loss: str | Loss, optimizer: torch.optim.Optimizer) -> None:
        refuse_special_steps(optimizer, "be trained with")
        self._model, self._loss, self.optimizer = model, resolve_loss(loss), optimizer
        self.state_dict, self.load_state_dict = optimizer.state_dict, optimizer.load_state_dict

    # Its kernels are unknown, and may look at the host.
    capturable = False

    def step(self, inputs: Tensor, targets: Tensor) -> GradientInfo:
        """Take one step on a minibatch; the learning rate reported is that of the first parameter group."""
        self.optimizer.zero_grad()
        with torch.enable_grad():
            loss = self._loss(self._model(inputs), targets)
            loss.backward()
            self.optimizer.step()
        lr = self.optimizer.param_groups[0].get("lr", float("nan"))
        return GradientInfo(loss.detach(), torch.as_tensor(lr, dtype=loss.dtype))


def make_own(model: nn.Module, loss: str | Loss, path: str, **options: Any) -> Any:
    """Make a baseline: one of PyTorch's kind, or a class ``(model, loss, **options)`` with the study's step."""
    made = load_class(path)
    if "model" in inspect.signature(made).parameters:
        return made(model, loss, **options)
    return OrdinaryOptimizer(model, loss, _made_over(made, model, path, options))


def make_heuristics(model: nn.Module, loss: str | Loss, path: str, **options: Any) -> QLR:
    """Make :class:`adamqlr.QLR` over a direction, whose own options are named ``direction.NAME``."""
    of_direction = {k.removeprefix(DIRECTION): v for k, v in options.items() if k.startswith(DIRECTION)}
    heuristics = {name: value for name, value in options.items() if not name.startswith(DIRECTION)}
    if path in DIRECTIONS:
        if of_direction:
            raise ValueError(f"direction '{path}' takes no options of its own: give them as heuristics, or another")
        return QLR(model, loss, path, **heuristics)
    made = load_class(path)
    is_optimizer = isinstance(made, type) and issubclass(made, torch.optim.Optimizer)
    direction = _made_over(made, model, path, of_direction) if is_optimizer else made(**of_direction)
    return QLR(model, loss, direction, **heuristics)


def own_keywords(spec: OptimizerSpec) -> tuple[list[str], list[str]]:
    """Return patterns of the names of keyword arguments, and the names of those that have no default."""
    assert spec.wraps is not None
    known, required = ([], []) if spec.wraps in DIRECTIONS else _parameters(load_class(spec.wraps))
    if not spec.factory.endswith(":make_heuristics"):
        return known, required
    of_direction = [f"{DIRECTION}{name}" for name in known]
    return [*_parameters(QLR)[0], *of_direction], [f"{DIRECTION}{name}" for name in required]


def load_class(path: str) -> Any:
    """Return the class that ``module:Name`` or ``file.py:Name`` names.

    Raises:
        UserError: It cannot be imported.
    """
    module, _, name = path.rpartition(":")
    try:
        return getattr(_import_file(module) if module.endswith(".py") else import_module(module), name)
    except (ImportError, AttributeError, OSError) as error:
        raise UserError(f"{path}: cannot be imported: {error}") from error
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        reason = f"{type(error).__name__} in line {line}: {error}"
        raise UserError(f"{path}: cannot be imported: {reason}") from error


def _import_file(path: str) -> Any:
    # Known by its whole path: two files may have one name.
    name = f"adamqlr_own_{Path(path).resolve()}"
    if name not in sys.modules:
        found = spec_from_file_location(name, path)
        assert found is not None
        assert found.loader is not None
        module = module_from_spec(found)
        found.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


def _made_over(made: Any, model: nn.Module, path: str, options: dict[str, Any]) -> torch.optim.Optimizer:
    optimizer = made(model.parameters(), **options)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"{path} makes a {type(optimizer).__name__}, which is no torch.optim.Optimizer")
    return optimizer


def _parameters(made: Any) -> tuple[list[str], list[str]]:
    parameters = [p for p in inspect.signature(made).parameters.values() if p.name not in _NOT_OPTIONS]
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return ["*"], []
    named = [p for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    return [p.name for p in named], [p.name for p in named if p.default is inspect.Parameter.empty]
