"""How runs evolve: medians over seeds and their uncertainty, against training time or steps."""

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from adamqlr.errors import UserError
from adamqlr.figures.panels import Panel, draw_grid, loss_panel, performance_panel
from adamqlr.optim.ratios import GOOD_RATIO, POOR_RATIO
from adamqlr.results.clocks import has_evaluation_times, with_evaluation
from adamqlr.results.study import Pair, Study

_PARTS = ("train", "test")


def performance(study: Study, suite: str) -> tuple[Figure, pd.DataFrame]:
    """Draw training and test performance against training time: loss for regression, accuracy for classification."""
    return draw_grid(_listed_pairs(study, suite), study.resampling, "time", _rows(performance_panel))


def loss(study: Study, suite: str) -> tuple[Figure, pd.DataFrame]:
    """Draw training and test loss against training time."""
    return draw_grid(_listed_pairs(study, suite), study.resampling, "time", _rows(loss_panel))


def loss_by_step(study: Study, suite: str) -> tuple[Figure, pd.DataFrame]:
    """Draw training and test loss against steps."""
    return draw_grid(_listed_pairs(study, suite), study.resampling, "step", _rows(loss_panel))


def loss_with_evaluation(study: Study, suite: str) -> tuple[Figure, pd.DataFrame]:
    """Draw training and test loss against the time of training with an evaluation after every step.

    Returns:
        The figure, and its curves: a row for each dataset, optimizer, metric and time.

    Raises:
        UserError: No cube says what evaluation takes, as those of version 0.1 do not.
    """
    pairs = [
        pair._replace(cube=with_evaluation(pair.cube))
        for pair in _listed_pairs(study, suite)
        if not pair.is_trajectory and has_evaluation_times(pair.cube)
    ]
    if not pairs:
        raise UserError(f"suite '{suite}': no cube says what evaluation takes; train again to have it measured")
    return draw_grid(pairs, study.resampling, "time", _rows(loss_panel), "Training and evaluation time (s)")


def learning_rate(study: Study, suite: str) -> tuple[Figure, pd.DataFrame]:
    """Draw the learning rate α against training time, signed."""
    return draw_grid(_listed_pairs(study, suite), study.resampling, "time", [_learning_rate_panel])


def damping(study: Study, suite: str) -> tuple[Figure, pd.DataFrame]:
    """Draw the damping λ and the reduction ratio ρ against steps, for the optimizers that have them."""
    pairs = [pair for pair in _listed_pairs(study, suite) if _has_damping(pair)]
    return draw_grid(pairs, study.resampling, "step", [_damping_panel, _reduction_ratio_panel])


def sharpness(study: Study, suite: str) -> tuple[Figure, pd.DataFrame]:
    """Draw the directional sharpness of the updates against steps.

    Returns:
        The figure, and its curves: a row for each dataset, optimizer and step.

    Raises:
        UserError: No cube has it, as those of version 0.1 do not.
    """
    pairs = [pair for pair in _listed_pairs(study, suite) if _has_sharpness(pair)]
    if not pairs:
        raise UserError(f"suite '{suite}': no cube has the sharpness of updates; train again to have it measured")
    return draw_grid(pairs, study.resampling, "step", [_sharpness_panel])


def ablation(
    study: Study,
    suite: str,
    optimizers: Sequence[str],
    datasets: Sequence[str] | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """Draw the training and test loss of some optimizers on some datasets, all if none is named."""
    pairs = [
        pair
        for pair in study.pairs(suite)
        if pair.optimizer in optimizers and (datasets is None or pair.dataset in datasets)
    ]
    return draw_grid(pairs, study.resampling, "time", _rows(loss_panel))


def _rows(panel: Callable[[str, Pair], Panel]) -> list[Callable[[Pair], Panel]]:
    return [partial(panel, part) for part in _PARTS]


def _listed_pairs(study: Study, suite: str) -> list[Pair]:
    """Return the pairs less those of factorials, which have figures of their own."""
    return [pair for pair in study.pairs(suite) if pair.optimizer not in study.config.factorial_optimizers]


def _has_damping(pair: Pair) -> bool:
    return bool((pair.cube["value_by_step"].sel(metric="damping") > 0).any())


def _has_sharpness(pair: Pair) -> bool:
    values = pair.cube["value_by_step"]
    return "sharpness" in values["metric"] and bool(values.sel(metric="sharpness").notnull().any())


def _sharpness_panel(pair: Pair) -> Panel:
    return Panel("sharpness", "Sharpness uᵀCu / ‖u‖²", "log", bounds=(1e-8, 1e8))


def _learning_rate_panel(pair: Pair) -> Panel:
    return Panel("lr", "Learning rate α", "signed", bounds=(1e-8, 1e4))


def _damping_panel(pair: Pair) -> Panel:
    # Once a loss no longer changes in single precision, ρ reads 0 and damping grows for ever.
    return Panel("damping", "Damping λ", "log", bounds=(1e-9, 1e4))


def _reduction_ratio_panel(pair: Pair) -> Panel:
    return Panel("rho", "Reduction ratio ρ", "linear", limits=(-0.5, 2.5), guides=(POOR_RATIO, GOOD_RATIO))
