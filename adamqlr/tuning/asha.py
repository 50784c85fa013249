"""Asynchronous successive halving (ASHA; Li et al., MLSys 2020): configurations, rungs and the promotion rule."""

from typing import Any

import numpy as np
import optuna

from adamqlr.config import StudyConfig
from adamqlr.space import Space
from adamqlr.training.run import Limit


def draw_configurations(space: Space, count: int, seed: int) -> list[dict[str, Any]]:
    """Draw ``count`` random configurations; the same for every shard of the same study."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, 2]))
    return [{name: space[name].draw(generator) for name in sorted(space)} for _ in range(count)]


def rung_resources(config: StudyConfig, suite: str, dataset: str) -> list[float]:
    """Return the resource at each rung, in the unit of ``config.tuning``: the last is where a trial is complete."""
    tuning, settings = config.tuning, config.dataset(dataset)
    by_epochs = config.suite(suite).budget == "epochs"
    limit = tuning.limit if by_epochs or tuning.unit == "epochs" else settings.runtime
    if by_epochs and tuning.unit == "epochs":
        limit = min(limit, settings.epochs)
    resources, resource = [], tuning.first_rung
    while resource < limit:
        resources.append(resource)
        resource *= tuning.reduction_factor
    return [*resources, limit]


def rung_limit(config: StudyConfig, suite: str, dataset: str, resource: float, steps_per_epoch: int) -> Limit:
    """Return how far a trial trains to reach a rung."""
    if config.tuning.unit == "epochs":
        return Limit(steps=max(1, round(resource * steps_per_epoch)))
    if config.suite(suite).budget == "epochs":
        return Limit(steps=config.dataset(dataset).epochs * steps_per_epoch, seconds=resource)
    return Limit(seconds=resource)


class AshaPruner(optuna.pruners.BasePruner):
    """Stops a trial that is not among the best 1/η of those that have reported at its rung so far.

    Unlike :class:`optuna.pruners.SuccessiveHalvingPruner`, which notes a rung as completed before its verdict is
    carried out, this is a function of the reported values alone: a shard killed in between decides the same again.

    Args:
        reduction_factor: η.
    """

    def __init__(self, reduction_factor: int) -> None:
        self._reduction_factor = reduction_factor

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Tell whether ``trial`` stops at the rung that it reported last."""
        rung = trial.last_step
        if rung is None:
            return False
        values = [
            other.intermediate_values[rung]
            for other in study.get_trials(deepcopy=False)
            if rung in other.intermediate_values
        ]
        promoted = max(1, len(values) // self._reduction_factor)
        better = sum(value < trial.intermediate_values[rung] for value in values)
        return better >= promoted
