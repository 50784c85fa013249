"""The promotion rule of asynchronous successive halving (ASHA; Li et al., MLSys 2020)."""

import optuna


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
