"""Which hyperparameters a run gets: registered, configured and chosen ones together."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from adamqlr.config import StudyConfig
from adamqlr.errors import UserError
from adamqlr.study.optimizers import OPTIMIZERS


def resolve_hyperparameters(
    config: StudyConfig, dataset: str, optimizer: str, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """Return ``batch_size`` and the optimizer's keyword arguments: registered, then configured, then ``chosen``.

    Raises:
        UserError: An argument is unknown, or one without a default is missing.
    """
    spec = OPTIMIZERS[optimizer]
    settings = config.dataset(dataset)
    batch_size = settings.batch_size if settings.fixed_batch_size else spec.batch_size or settings.batch_size
    merged = {"batch_size": batch_size, **spec.options, **config.optimizer(optimizer).options, **chosen}
    known, required = _arguments(spec.factory)
    for name in merged:
        if name != "batch_size" and name not in known:
            raise UserError(f"optimizer '{optimizer}': unknown hyperparameter '{name}': known are {', '.join(known)}")
    missing = [name for name in (*required, *spec.required) if name not in merged]
    if missing:
        raise UserError(
            f"optimizer '{optimizer}': no value for {', '.join(missing)}: "
            "give tuned ones with --best, or set them with --set optimizer.NAME=VALUE"
        )
    size = merged["batch_size"]
    if not isinstance(size, int) or size < 1:
        raise UserError(f"optimizer '{optimizer}': batch_size must be a positive whole number, got {size!r}")
    return merged


def _arguments(factory: str) -> tuple[list[str], list[str]]:
    module, _, name = factory.partition(":")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters.values()
    keywords = [parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    required = [parameter.name for parameter in keywords if parameter.default is inspect.Parameter.empty]
    return [parameter.name for parameter in keywords], required
