"""What a configuration may leave unsaid: the paper's suites and ablations, settings of datasets, factorials' pairs."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError, ValidationInfo

from adamqlr.study.datasets import DATASETS
from adamqlr.study.optimizer_settings import FactorialConfig
from adamqlr.study.overrides import names_to_mapping

PAPER_SUITES = {
    "epochs": {"budget": "epochs", "objective": "validation_loss"},
    "runtime_train": {"budget": "runtime", "objective": "train_loss"},
    "runtime_validation": {"budget": "runtime", "objective": "validation_loss"},
}

PAPER_ABLATIONS = {
    "damping": {"optimizers": ["adam", "adamqlr_undamped", "adamqlr"]},
    "curvature": {"optimizers": ["adam", "adamqlr_hessian", "adamqlr"]},
}


def dataset_defaults(value: Any, info: ValidationInfo) -> Any:
    """Complete the settings of the catalog's datasets; those of a result file are complete."""
    named = names_to_mapping(value)
    if not isinstance(named, Mapping) or (info.context or {}).get("is_complete"):
        return named
    return {
        key: _completed(DATASETS[key].defaults, settings)
        if key in DATASETS and isinstance(settings, Mapping)
        else settings
        for key, settings in named.items()
    }


def _completed(defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings on top of defaults, name by name also within a space or a network's size."""
    inner = {
        name: {**defaults[name], **given}
        for name, given in settings.items()
        if isinstance(given, Mapping) and isinstance(defaults.get(name), Mapping)
    }
    return {**defaults, **settings, **inner}


def with_factorials(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let the optimizers of factorials join the others, where they may be already."""
    optimizers, factorials = data.get("optimizers", {}), data.get("factorials")
    # A single name is refused where it is said whose it is.
    optimizers = optimizers if isinstance(optimizers, str) else names_to_mapping(optimizers)
    if not isinstance(factorials, Mapping) or not isinstance(optimizers, Mapping):
        return data if optimizers is None or "optimizers" not in data else {**data, "optimizers": optimizers}
    added: dict[str, Any] = {}
    for name, settings in factorials.items():
        try:
            own = FactorialConfig.model_validate(settings).optimizers()
        except ValidationError as error:
            raise ValueError(first_problem(error, f"factorials.{name}")) from error
        if twice := sorted(own.keys() & added):
            raise ValueError(f"factorials.{name}: another factorial has '{twice[0]}' too: rename its direction")
        for key in own.keys() & optimizers.keys():
            if any(optimizers[key].get(part) != own[key].get(part) for part in ("label", "optimizer", "direction")):
                raise ValueError(f"factorials.{name}: an optimizer is called '{key}' too: rename it, or the direction")
        added |= own
    return {**data, "optimizers": {**optimizers, **added}}


def suite_defaults(value: Any) -> Any:
    """Complete the paper's suites, which may be names alone.

    Returns:
        The settings of all suites, by name.

    Raises:
        ValueError: A name alone is none of these.
    """
    named = names_to_mapping(value)
    if not isinstance(named, Mapping):
        return named
    if unknown := [key for key, settings in named.items() if key not in PAPER_SUITES and settings == {}]:
        raise ValueError(
            f"unknown suite '{unknown[0]}': known are {', '.join(PAPER_SUITES)}; one of your own needs a 'budget' and "
            "an 'objective'"
        )
    return {
        key: {**PAPER_SUITES.get(key, {}), **settings} if isinstance(settings, Mapping) else settings
        for key, settings in named.items()
    }


def first_problem(error: ValidationError, prefix: str = "") -> str:
    """Say in a line what is wrong first, and where."""
    problem = error.errors()[0]
    where = ".".join(filter(None, [prefix, *map(str, problem["loc"])]))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "unknown key"
    return f"{where}: {message}" if where else message
